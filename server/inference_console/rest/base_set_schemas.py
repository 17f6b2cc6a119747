"""The schemas of the base set and of operations, for the OpenAPI description."""

from __future__ import annotations

from typing import Any

_NAMES = {"type": "array", "items": {"type": "string"}, "description": "Names as class/file."}
_COUNTS = {"type": "object", "additionalProperties": {"type": "integer"}}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_OPTIONAL_NAMES = {"type": ["array", "null"], "items": {"type": "string"}}
_TIME = {"type": ["string", "null"], "format": "date-time"}
_OPERATION = {"type": "string", "description": "The operation's id, for /operations/{id}."}
_PORTS = {"type": "array", "items": {"type": "integer"}, "description": "Ports of the servers that have taken it up."}
_SETTINGS = {
    "threshold": {"type": "number"},
    "unknown_label": {"type": ["string", "null"]},
    "neighbors": {"type": "integer"},
}
_DIFFERENCE = {"added": _NAMES, "removed": _NAMES, "replaced": _NAMES}
_PAIRS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["images", "similarity"],
        "properties": {"images": _NAMES, "similarity": {"type": "number"}},
    },
}
_ANSWER = {
    "type": "object",
    "required": ["label", "similarity", "nearest"],
    "properties": {
        "label": {"type": "string"},
        "similarity": {"type": "number"},
        "nearest": {"type": "string", "description": "The most similar base image, as class/file."},
    },
}


def _object(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "required": required, "properties": properties}


SCHEMAS: dict[str, Any] = {
    "BaseSet": _object({
        "version": {"type": "integer"},
        "network_version": {"type": "integer"},
        "versions": {"type": "array", "items": {"type": "integer"}, "description": "All versions that are kept."},
        "exported": _TIME,
        **_SETTINGS,
        "base_images": _COUNTS,
        "images": _NAMES,
        "since_version_before": {"type": ["object", "null"], "properties": _DIFFERENCE},
        "changes": {
            "type": "array",
            "description": "What each kept version changed, newest first; null where it can't be compared.",
            "items": _object({
                "version": {"type": "integer"},
                "exported": _TIME,
                "network_version": {"type": "integer"},
                **dict.fromkeys(("added", "removed", "replaced"), _OPTIONAL_NAMES),
                "settings": {"type": "object"},
            }),
        },
        "doubtful": {
            "type": ["array", "null"],
            "description": "Images that may be mistakes; null while they are being compared.",
            "items": _object({
                "image": {"type": "string"},
                "kind": {"enum": ["closer to another class", "same as in another class", "same as in its class"]},
                "other": {"type": "string", "description": "The other class or image."},
                "similarity": {"type": "number"},
                "own_similarity": {"type": ["number", "null"]},
            }),
        },
        "changeable": {"type": "boolean", "description": "Whether the visitor can change the base set here."},
        "unchangeable_because": {"type": ["string", "null"]},
    }),
    "Checked": _object({
        "repository": {"type": "string"},
        "version": {"type": "integer"},
        **_DIFFERENCE,
        "undecodable": _TEXTS,
        "rotated": _NAMES,
        "base_images_before": _COUNTS,
        "base_images_after": _COUNTS,
        "closer_to_another_class": {
            "type": "array",
            "items": _object({
                "image": {"type": "string"},
                "own_similarity": {"type": "number"},
                "other_class": {"type": "string"},
                "other_similarity": {"type": "number"},
            }),
        },
        "label_conflicts": _PAIRS,
        "near_duplicates": _PAIRS,
        "new_images": {
            "type": "array",
            "description": "The new images, asked as queries before and after.",
            "items": _object({"image": {"type": "string"}, "before": _ANSWER, "after": _ANSWER}),
        },
        "queries": {
            "type": ["object", "null"],
            "description": "The answers before and after; null if the console has no queries.",
            "properties": {
                "compared": {"type": "integer"},
                "undecodable": _TEXTS,
                "flips": {
                    "type": "array",
                    "items": _object({
                        "query": {"type": "string"},
                        "before": _ANSWER,
                        "after": _ANSWER,
                        "truth": {"type": ["string", "null"]},
                    }),
                },
                "right_before": {"type": ["integer", "null"]},
                "right_after": {"type": ["integer", "null"]},
                "p_value": {"type": ["number", "null"]},
            },
        },
        "operation": _OPERATION,
    }),
    "Changed": {
        "anyOf": [
            _object({
                "repository": {"type": "string"},
                "version": {"type": "integer"},
                "version_before": {"type": "integer"},
                **_DIFFERENCE,
                **_SETTINGS,
                "base_images": _COUNTS,
                "servers": _PORTS,
                "notes": {"type": "array", "items": {"type": "string"}},
                "operation": _OPERATION,
            }),
            {"$ref": "#/components/schemas/Forgotten"},
        ]
    },
    "Forgotten": _object({
        "repository": {"type": "string"},
        "images": _NAMES,
        "version": {"type": "integer"},
        "version_before": {"type": "integer"},
        "servers": _PORTS,
        "looked_at": {"type": "array", "items": {"type": "object"}, "description": "Every file that was searched."},
        "remaining": {"type": "array", "items": {"type": "object"}},
        "out_of_reach": {"type": "array", "items": {"type": "string"}},
        "operation": _OPERATION,
    }),
    "RolledBack": _object({
        "repository": {"type": "string"},
        "version": {"type": "integer"},
        "version_before": {"type": "integer"},
        "servers": _PORTS,
        "notes": {"type": "array", "items": {"type": "string"}},
        "operation": _OPERATION,
    }),
    "Operation": _object({
        "id": {"type": "string"},
        "command": {"enum": ["check", "add", "remove", "forget", "rollback"]},
        "title": {"type": "string"},
        "person": {"type": "string", "description": "Who asked for it; empty where nobody has a name."},
        "state": {"enum": ["waiting", "running", "done", "refused", "failed", "cancelled"]},
        "asked": _TIME,
        "ended": _TIME,
        "step": {
            "type": ["object", "null"],
            "properties": {
                "label": {"type": "string"},
                "done": {"type": "integer"},
                "total": {"type": "integer"},
            },
        },
        "result": {"type": ["object", "null"], "description": "What the command base-set printed."},
        "message": {"type": "string", "description": "Why it was refused, or has failed."},
    }),
}  # fmt: skip
