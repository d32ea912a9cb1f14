"""Documents of every contract version, as they were first written. A file in ``golden/`` is added, never edited."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from inspection.contracts import (
    Assignment,
    Contract,
    Enrolment,
    Manifest,
    PictureNote,
    Receipt,
    Recipe,
    Release,
    Report,
    TrustRoot,
    Verdict,
    canonical_json,
    sha256_hex,
)
from inspection.data.product import Product
from inspection.data.snapshot_record import Snapshot

GOLDEN = Path(__file__).parent / "golden"
KINDS: tuple[type[Contract], ...] = (
    Assignment,
    Enrolment,
    Manifest,
    PictureNote,
    Product,
    Receipt,
    Recipe,
    Release,
    Report,
    Snapshot,
    TrustRoot,
    Verdict,
)
BY_NAME = {kind.SCHEMA.partition("/")[0].removeprefix("escapement."): kind for kind in KINDS}
DIGESTS = {
    "assignment-1.0": "1af70ce7a8c084a34e89d860fc4724321b362aebb934bf64cd5998bc3c552343",
    "assignment-1.1": "67aa8cff341d7a3ad5f33a798437b43fe585dd98f9dd1e62cca2e14559614ea7",
    "enrolment-1.0": "9a9836859f9ed386dd79682f2ddf351b60d5c8c22e4dafadf98f7d6da3b97484",
    "manifest-1.0": "0a5f84c45d9ebedb0a75516d464490af7f64dc5e7b570925f2406ee81f662053",
    "manifest-1.1": "da80fde1b722d092064dfde90f8d562d34d1ed7b23fe15c8e161cdea143336c8",
    "picture-1.0": "15123bac0c7458252d95492afe879534e79a964eaac4008d08d4b785c6e132c4",
    "product-1.0": "0c5c2062d5acd19a25da3f77f74a4b4f572f2207320ed0a1fe1de8a172ba424e",
    "receipt-1.0": "8ba4299360ec2976b35003489f57875951ca041d836d8d0473f9cc0cea8ab56a",
    "recipe-1.0": "aefc07365ebd1e6796748107f0a60f523b211daa042940ddc225762f2bfe3288",
    "recipe-1.1": "7d8a00288344e027475825e3c0c6f3d244abae14e10db4cde3919723798353bc",
    "recipe-1.2": "163cbc0a795ce033d4233233a56fc15ea52b63f8c5d9bb1fe5f1cf6460c956b2",
    "release-1.0": "fb649b765f25ca70cafca00fcf48ca84de10e1e983d6f57a6bf60e3336352029",
    "report-1.0": "f48c1866e73f0e85027760445a2cd6ac1a946365b1b8949b3068bff72dd62a87",
    "report-1.1": "b80811b1329eeec30e776c12bc8cd8fe9cbe958b991508629f53e440c3df39a5",
    "snapshot-1.0": "ba1f7af5694ee57146170f045f4d15f1782676722deab19ead208c93af93d56f",
    "trust-1.0": "3e798c051b5274ee9979342e6584cae14a586fc8d2e272849f4c246a2bfde53a",
    "verdict-1.0": "6b3315ccb6faf7d7531ef207ff1494503ff2f189a17cc1cf6dada84dfdb6d1e0",
    "verdict-1.1": "7baab766801c11605d795e49626b57558247f7c010005bf90fda782a388278da",
    "verdict-1.2": "91090c4acb9917bfdd15bd91fc0b77b51f1c05298b5e03d714528668db9bef4c",
    "verdict-1.3": "7366d34f2269262d1e386ffb4586f7a2fa75cd6bf12d4327bdd9eba94f22501e",
}


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return content


def kind_of(name: str) -> type[Contract]:
    return BY_NAME[name.partition("-")[0]]


def test_every_contract_has_its_golden_document_and_no_other_is_there() -> None:
    """Whoever adds a contract, or a version, adds its document."""
    current = {kind.SCHEMA.removeprefix("escapement.").replace("/", "-") for kind in KINDS}
    on_disk = {file.stem for file in GOLDEN.glob("*.json")}
    assert current <= on_disk
    assert on_disk == DIGESTS.keys()


def test_every_contract_in_the_package_is_covered() -> None:
    """The list above names all subclasses of Contract that exist."""

    def below(kind: type[Contract]) -> set[type[Contract]]:
        return {kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))}

    assert {kind for kind in below(Contract) if kind.__module__.startswith("inspection.contracts")} - {Contract} <= set(
        KINDS
    )


@pytest.mark.parametrize("name", DIGESTS)
def test_a_golden_document_reads_and_writes_back_the_same(name: str) -> None:
    """Nothing of it is lost, added or reordered in meaning."""
    assert json.loads(kind_of(name).parse((GOLDEN / f"{name}.json").read_bytes()).canonical()) == read(name)


@pytest.mark.parametrize("name", DIGESTS)
def test_its_digest_never_changes(name: str) -> None:
    """Signatures and ids of the past stay valid."""
    assert kind_of(name).model_validate(read(name)).digest == DIGESTS[name]


@pytest.mark.parametrize("name", DIGESTS)
def test_unknown_fields_are_kept(name: str) -> None:
    """A newer program's fields survive an older one, and count in the digest."""
    later = read(name) | {"added_later": {"deep": [1, 2.5, None]}, "schema": kind_of(name).SCHEMA.rpartition(".")[0] + ".7"}
    document = kind_of(name).model_validate(later)
    assert json.loads(document.canonical()) == later
    assert document.digest == sha256_hex(canonical_json(later)) != DIGESTS[name]


@pytest.mark.parametrize("name", DIGESTS)
@pytest.mark.parametrize("schema", ["{name}/2.0", "escapement.other/1.0", "{name}", "{name}/"])
def test_another_major_version_or_document_is_refused(name: str, schema: str) -> None:
    """What this program cannot know is not guessed at."""
    own = kind_of(name).SCHEMA.partition("/")[0]
    with pytest.raises(ValidationError, match=r"not readable here|expected"):
        kind_of(name).model_validate(read(name) | {"schema": schema.format(name=own)})


@pytest.mark.parametrize("name", DIGESTS)
def test_documents_are_frozen(name: str) -> None:
    """A document that was hashed or signed cannot change afterwards."""
    document = kind_of(name).model_validate(read(name))
    with pytest.raises(ValidationError, match="frozen"):
        document.schema_ = "escapement.other/1.0"


def test_canonical_bytes_are_sorted_compact_utf8_without_nan() -> None:
    """The same value gives the same bytes on every machine; what JSON cannot say is refused."""
    assert canonical_json({"b": 1, "a": "ä"}) == '{"a":"ä","b":1}'.encode()
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"a": float("nan")})


def test_a_recipe_keeps_its_promise() -> None:
    """A threshold may move down under it; where more passes than was promised about, the recipe is refused."""
    lower = read("recipe-1.1") | {"thresholds": {"*": {"inconclusive": 0.2, "ng": 0.6}}}
    assert Recipe.model_validate(lower).promise is not None
    for thresholds in ({"*": {"inconclusive": 0.32, "ng": 0.6}}, {"dent": {"inconclusive": 0.1, "ng": 0.6}}):
        with pytest.raises(ValidationError, match="leave it out or calibrate anew"):
            Recipe.model_validate(read("recipe-1.1") | {"thresholds": thresholds})


@pytest.mark.parametrize("time", ["2026-01-02T03:04:05", "2026-01-02T03:04:05+02:00"])
def test_times_are_utc(time: str) -> None:
    """A time without a zone, or in another one, is refused."""
    with pytest.raises(ValidationError):
        Verdict.model_validate(read("verdict-1.0") | {"captured_at": time})


@pytest.mark.parametrize("name", ["manifest-1.0", "recipe-1.0", "recipe-1.1", "verdict-1.2"])
def test_documents_of_before_novelty_ask_for_none(name: str) -> None:
    """An older bundle has no such output, an older recipe no such limit, an older verdict no such number."""
    document = kind_of(name).model_validate(read(name))
    said = document.output.novelty if isinstance(document, Manifest) else None
    said = document.unfamiliar if isinstance(document, Recipe) else said
    assert (document.novelty if isinstance(document, Verdict) else said) is None
