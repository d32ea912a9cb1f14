"""Who is told on the line."""

from edge_agent.signals.port import Signal

__all__ = ["Signal"]
