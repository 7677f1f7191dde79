"""A tiny Llama as a GGUF file."""

import gguf
import numpy as np

LAYERS, HIDDEN, INNER, HEADS = 2, 64, 96, 2
TOKENS = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ab"]


def shapes(inner=INNER):
    yield "token_embd", (len(TOKENS), HIDDEN)
    yield "output_norm", (HIDDEN,)
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}", (HIDDEN,)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"blk.{layer}.{name}", (HIDDEN, HIDDEN)
        yield f"blk.{layer}.ffn_gate", (inner, HIDDEN)
        yield f"blk.{layer}.ffn_up", (inner, HIDDEN)
        yield f"blk.{layer}.ffn_down", (HIDDEN, inner)


def write_gguf(path, *, without=(), architecture="llama", more=(), split=0, down="Q8_0", inner=INNER, file_type=None):
    """A two-layer Llama, matrices in Q8_0 (blocks of 32), down projections in `down`, (HIDDEN, inner), vectors in F32;
    `more` tensors, in files of `split` each.
    """
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split)
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    if file_type is not None:
        writer.add_file_type(file_type)
    writer.add_token_list(TOKENS)
    writer.add_token_types([2, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    random = np.random.default_rng(0)
    for name, shape in shapes(inner):
        if name in without:
            continue
        values = random.normal(0, 0.05, shape).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", values)
        else:
            kind = gguf.GGMLQuantizationType[down if "ffn_down" in name else "Q8_0"]
            writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
    for name, values in more:
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
