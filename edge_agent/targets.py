"""What the hub offers, from its address to a bundle that can run: fetched, kept on the shelf, checked, opened.

Invariant: nothing of a target is parsed before envelope, length and digest are checked, on each way in: what comes from the
shelf is believed no more than what comes from the network.
"""

from collections.abc import Callable

from pydantic import ValidationError

from edge_agent.bundle import Bundle, check_recipe, open_bundle
from edge_agent.errors import BundleError, DeviceError, ShortageError
from edge_agent.inspecting import Loaded
from edge_agent.runtime import Runtime
from edge_agent.shelf import Shelf, Slot
from edge_agent.transport import Transport
from edge_agent.trust import check_bytes, check_release, check_target
from inspection.contracts import Manifest, Recipe, Release, Target, TargetKind, TrustRoot

MakeRuntime = Callable[[bytes, Manifest], Runtime]


class Targets:
    """Bundles and recipes for one product, signed under one root, of at most ``max_bytes`` each."""

    def __init__(
        self,
        shelf: Shelf,
        transport: Transport,
        make_runtime: MakeRuntime,
        *,
        root: TrustRoot,
        product: str,
        max_bytes: int,
    ) -> None:
        self._shelf = shelf
        self._transport = transport
        self._make_runtime = make_runtime
        self._root = root
        self._product = product
        self._max_bytes = max_bytes

    def fetch(self, kind: TargetKind, target: Target) -> None:
        """Have a target on the shelf, checked. What is there already is checked again when it is opened.

        HubError when the hub is away, TrustError on other bytes than were signed, DeviceError on a full disk,
        ShortageError when there is too little memory for it now.
        """
        if self._shelf.has(kind, target.sha256):
            return
        envelope = self._transport.envelope(target.sha256)
        release = self._release(envelope, kind, target.sha256)
        check_target(release, target)
        try:
            self._shelf.need_room(release.length)
            self._download(release)
            self._shelf.put(kind, target.sha256, envelope)
        except OSError as error:
            said = f"{release.name} cannot be stored: {error.strerror}; is the disk full or read-only?"
            raise DeviceError(said) from error
        finally:
            self._shelf.clear_staging()  # half a download must not take the room that the journal needs

    def open(self, digest: str) -> Loaded:
        """A bundle from the shelf with its own recipe. BundleError, ModelError or DeviceError when it is broken,
        ShortageError when there is too little memory for it now, LackError when its runtime is not installed here."""
        try:
            bundle = open_bundle(self._verified(TargetKind.BUNDLE, digest))
            if bundle.manifest.product != self._product:
                raise BundleError(f"bundle is for product {bundle.manifest.product}, this station makes {self._product}")
            return Loaded(bundle, bundle.recipe, self._make_runtime(bundle.model, bundle.manifest))
        except MemoryError as error:
            raise ShortageError(f"too little memory for bundle {digest[:12]}") from error

    def recipe(self, slot: Slot, bundle: Bundle) -> Recipe:
        """The recipe that a slot names, else the bundle's own. BundleError when it is unreadable or does not fit."""
        if slot.recipe is None:
            return bundle.recipe
        data = self._verified(TargetKind.RECIPE, slot.recipe)
        try:
            recipe = Recipe.parse(data)
        except ValidationError as error:
            raise BundleError(f"recipe {slot.recipe[:12]} is unreadable: {error}") from error
        check_recipe(recipe, bundle.manifest)
        return recipe

    def load(self, slot: Slot) -> Loaded:
        """The bundle of a slot that has one, with the slot's recipe. Raises what `open` and `recipe` raise."""
        loaded = self.open(str(slot.bundle))
        return Loaded(loaded.bundle, self.recipe(slot, loaded.bundle), loaded.runtime)

    def _download(self, release: Release) -> None:
        """A target's bytes, checked, in its staging file."""
        part = self._shelf.staging_file(release.sha256)
        with part.open("wb") as into:
            self._transport.fetch(release.sha256, release.length, into)
        try:
            check_bytes(part.read_bytes(), release)
        except MemoryError as error:
            raise ShortageError(f"too little memory for the {release.length} bytes of {release.name}") from error

    def _verified(self, kind: TargetKind, digest: str) -> bytes:
        """A target's bytes from the shelf, believed only because they were checked just now."""
        data, envelope = self._shelf.get(kind, digest)
        check_bytes(data, self._release(envelope, kind, digest))
        return data

    def _release(self, envelope: bytes, kind: TargetKind, digest: str) -> Release:
        return check_release(envelope, self._root, digest, kind=kind, product=self._product, max_length=self._max_bytes)
