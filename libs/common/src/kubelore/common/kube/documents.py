"""YAML and JSON from outside, read as kubectl reads it and without what hurts a server.

A file means here what it means to kubectl (sigs.k8s.io/yaml, see `yaml_scalars`):
unquoted `yes`, `on` and `y` are booleans, `0644` is octal, timestamps stay
strings, and a number or boolean as a key becomes its text (`on: x` is the key
"true"). Whole floats become integers, as on their way through JSON there. Anchors
and `<<` merges work; a key of its own wins over a merged one wherever it stands.
Text that starts with `{` is tried as a stream of JSON values first.

Stricter than kubectl, always with an error that says where: duplicate keys
(kubectl takes the last), tags beyond JSON's own types, `%TAG` (libyaml checks each
against all before it), integers beyond 64 bits (kubectl makes them floats), keys
that are floats, NUL anywhere and control characters in text or keys. A control
character written as an escape in a value is kept: ConfigMaps hold such.

Bounded: depth, nodes and characters are counted while libyaml's parser emits
events, aliases at the size of what they stand for, so that an alias bomb, a deep
document and a costly one all end at their limit, before anything recurses. No
error quotes a value: a document may be a Secret or a kubeconfig.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import yaml
from yaml.reader import ReaderError

from kubelore.common.errors import BadRequest, Invalid, TooLarge
from kubelore.common.kube.json_documents import read_json_stream
from kubelore.common.kube.yaml_events import DocumentBuilder, Limits
from kubelore.common.kube.yaml_printer import dump

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_DOCUMENTS", "MAX_NODES", "dump", "load_documents", "load_json"]

MAX_BYTES = 3 * 1024 * 1024
"""As much as the API server takes in one request."""
MAX_DEPTH = 100
MAX_NODES = 450_000
"""Keys, values, and thrice the lists and maps, aliases expanded: 2.5 MB of the densest Deployments, and about
half a second of one core until a hostile text is refused."""
MAX_DOCUMENTS = 1_000

_REFUSED_CHARACTER = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f]")
"""Forbidden by YAML and JSON alike. YAML forbids more (libyaml refuses it), which JSON text may hold."""
_TAG_DIRECTIVE = re.compile("(?:^|[\n\r\x85\u2028\u2029])%TAG")


def load_documents(
    text: str | bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_nodes: int = MAX_NODES,
    max_documents: int = MAX_DOCUMENTS,
) -> list[dict[str, Any]]:
    """The objects of a YAML or JSON text; empty documents are left out.

    Raises TooLarge over a limit, BadRequest for what is no UTF-8, YAML or JSON,
    Invalid for what is understood and refused. Each carries a `code`: too-large,
    too-deep, too-many-nodes, too-many-documents, encoding, syntax,
    control-character, duplicate-key, key, tag, number, alias, not-an-object.
    """
    limits = Limits(characters=max_bytes, depth=max_depth, nodes=max_nodes, documents=max_documents)
    checked = _checked_text(text, max_bytes)
    documents = read_json_stream(checked, limits) if checked.lstrip()[:1] == "{" else None
    if documents is None:
        documents = _read_yaml(checked, limits)
    objects: list[dict[str, Any]] = []
    for number, document in enumerate(documents, 1):
        if isinstance(document, dict):
            objects.append(document)
        elif document is not None:
            raise Invalid(
                f"Document {number} is not an object.",
                remedy="Every document must be a map with apiVersion and kind.",
                code="not-an-object",
            )
    return objects


def load_json(text: str | bytes, *, max_bytes: int = MAX_BYTES, max_nodes: int = MAX_NODES) -> Any:
    """The one value of a JSON text. Raises what `load_documents` does, by the same rules."""
    limits = Limits(characters=max_bytes, depth=MAX_DEPTH, nodes=max_nodes, documents=1)
    found = read_json_stream(_checked_text(text, max_bytes), limits)
    if not found:
        raise BadRequest(f"The text is not JSON, or is more than {MAX_DEPTH} levels deep.", code="syntax")
    return found[0]


def _checked_text(text: str | bytes, max_bytes: int) -> str:
    """The text without a byte order mark, small enough and free of control characters."""
    try:
        encoded = text if isinstance(text, bytes) else text.encode()
        if len(encoded) > max_bytes:
            raise TooLarge(
                f"The text has {len(encoded):,} bytes; at most {max_bytes:,} are read.",
                remedy="Split it into several smaller ones.",
                code="too-large",
            )
        decoded = encoded.decode()
    except UnicodeError:
        raise BadRequest("The text is not UTF-8.", remedy="Save it as UTF-8.", code="encoding") from None
    decoded = decoded.removeprefix("\ufeff")
    if found := _REFUSED_CHARACTER.search(decoded):
        line = decoded.count("\n", 0, found.start()) + 1
        raise Invalid(
            f"Line {line} holds the control character U+{ord(found[0]):04X}.",
            remedy="Remove it, or write it as an escape in double quotes.",
            code="control-character",
            line=line,
        )
    return decoded


def _read_yaml(text: str, limits: Limits) -> list[Any]:
    if found := _TAG_DIRECTIVE.search(text):
        line = text.count("\n", 0, found.end()) + 1
        raise Invalid(
            f"Line {line} declares a tag of its own (%TAG).", remedy="Remove it.", code="tag", line=line
        )
    try:
        loader = yaml.CSafeLoader(text)
        try:
            return DocumentBuilder(limits).build(loader.get_event)
        finally:
            loader.dispose()
    except ReaderError as error:
        raise Invalid(
            f"The character U+{_code_point(error):04X} is not allowed in YAML.",
            remedy="Remove it, or write it as an escape in double quotes.",
            code="control-character",
        ) from None
    except yaml.MarkedYAMLError as error:
        _refuse_syntax(error)


def _code_point(error: ReaderError) -> int:
    return error.character if isinstance(error.character, int) else ord(error.character)


def _refuse_syntax(error: yaml.MarkedYAMLError) -> NoReturn:
    # libyaml's problem is one of its own fixed phrases: it quotes nothing of the document.
    mark = error.problem_mark or error.context_mark
    where = f"Line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    raise BadRequest(
        f"{where}{error.problem or 'this is not YAML'}.",
        remedy="Look at the indentation, colons and quotes there.",
        code="syntax",
        **({"line": mark.line + 1} if mark else {}),
    ) from None
