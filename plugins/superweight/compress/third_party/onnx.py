"""ONNX through optimum: the model exported, and its matrices quantised dynamically to 8 bits by ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superweight.compress.third_party.launch import Job

_STEPS = "steps: export, quantise, save"


def quantise(job: Job) -> None:
    """Export without a cache of keys and values, and quantise."""
    from optimum.onnxruntime import ORTModelForCausalLM, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    settings = job.settings
    job.progress(0, 2, _STEPS)
    with tempfile.TemporaryDirectory() as place:
        work, exported = Path(place), Path(place) / "exported"
        source = _for_transformers_4(job, work)
        model = ORTModelForCausalLM.from_pretrained(source, export=True, use_cache=False, use_io_binding=False)
        model.save_pretrained(exported)
        job.progress(1, 2, _STEPS)
        config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=settings["per_channel"])
        config.nodes_to_exclude = _nodes(exported, settings["ignore"])
        ORTQuantizer.from_pretrained(exported).quantize(save_dir=job.out, quantization_config=config)
    job.copy_tokenizer()
    job.progress(2, 2, _STEPS)


def _nodes(exported: Path, names: list[str]) -> list[str]:
    """Nodes of the graph that multiply by the weights of these modules."""
    import onnx

    graph = onnx.load(str(exported / "model.onnx"), load_external_data=False).graph
    return [node.name for node in graph.node if any(f".{name}." in node.name.replace("/", ".") for name in names)]


def _for_transformers_4(job: Job, work: Path) -> Path:
    """The source as transformers 4 reads it, which does not know `rope_parameters` and would take 10,000 for theta."""
    config: dict[str, Any] = json.loads((job.source / "config.json").read_text(encoding="utf-8"))
    rope = config.get("rope_parameters")
    if not rope or "rope_theta" in config:
        return job.source
    if any(isinstance(value, dict) for value in rope.values()):
        raise job.unsupported(
            "rotary embeddings that differ by layer: optimum's exporter needs transformers 4 to read them"
        )
    config |= {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    if rope.get("rope_type", "default") != "default":
        config["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    copy = work / "source"
    copy.mkdir()
    for path in job.source.iterdir():
        (copy / path.name).symlink_to(path.resolve())
    (copy / "config.json").unlink()
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return copy
