"""The real Label Studio of the labelling tests, for the scripted operator."""

from tests.labelling.conftest import label_studio_server

__all__ = ["label_studio_server"]
