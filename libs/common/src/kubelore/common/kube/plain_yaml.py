from __future__ import annotations

import yaml

from kubelore.common.errors import BadRequest


def load_documents(text, **_):
    try:
        return [d for d in yaml.load_all(text, yaml.CSafeLoader) if d is not None]
    except yaml.YAMLError as error:
        raise BadRequest("no YAML") from error


def dump(obj):
    return yaml.safe_dump(obj)
