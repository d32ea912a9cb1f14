"""What starts an inspection."""

from edge_agent.trigger.port import Request, Trigger

__all__ = ["Request", "Trigger"]
