"""The schema of evidence.json: whatever a version published, later ones have too, of the same types."""

import json
from pathlib import Path

from superweight.report import json_schema

PUBLISHED = Path(__file__).parent / "data" / "schema_1_2.json"


def fields(schema):
    """The JSON types of every field, by the name of what holds it."""
    parts = {"RunDocument": schema, **schema["$defs"]}

    def types(node):
        if "$ref" in node:
            return types(parts[node["$ref"].rpartition("/")[2]])
        for union in ("anyOf", "allOf"):
            if union in node:
                return sorted({name for each in node[union] for name in types(each)})
        name = node.get("type", "string" if {"enum", "const"} & node.keys() else "any")
        if name == "array":
            inner = node.get("prefixItems") or [node["items"]]
            return [f"array of {', '.join(sorted({name for each in inner for name in types(each)}))}"]
        return sorted(name) if isinstance(name, list) else [name]

    return {
        part: {field: types(node) for field, node in body["properties"].items()}
        for part, body in parts.items()
        if "properties" in body
    }


def test_no_field_of_an_earlier_schema_is_gone_or_of_another_type():
    """To look at what was added: compare docs/evidence.schema.json with the last release's."""
    now = fields(json_schema())
    for part, published in json.loads(PUBLISHED.read_text()).items():
        kept = {field: now[part].get(field) for field in published}
        assert kept == published, part
