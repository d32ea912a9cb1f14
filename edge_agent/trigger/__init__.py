"""What starts an inspection."""

from edge_agent.trigger.port import Trigger

__all__ = ["Trigger"]
