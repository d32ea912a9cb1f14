"""The hub: devices, uploads, pictures for people, assignments, console, metrics. One FastAPI app over the store.

Importing the package loads no web framework, so that a flow can make picture links cheaply; ask
``inspection.hub.app`` for ``create_app`` and ``inspection.hub.links`` for ``picture_link``.
"""
