"""Where frames come from. `port.py` says what a camera promises; one file per backend; `guard.py` judges frames."""

from edge_agent.camera.port import Camera, Frame

__all__ = ["Camera", "Frame"]
