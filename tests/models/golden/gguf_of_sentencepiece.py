"""A SentencePiece model as the metadata of a GGUF file, as llama.cpp's conversion writes them."""

from __future__ import annotations

from pathlib import Path

import gguf
import sentencepiece

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def write_gguf(path: Path, model: Path, architecture: str) -> None:
    """Writes a file without weights; Gemma's has pieces of several blanks as they are typed."""
    processor = sentencepiece.SentencePieceProcessor(str(model))
    is_gemma = architecture.startswith("gemma")
    tokens, scores, kinds = [], [], []
    for i in range(len(processor)):
        piece, score, kind = processor.id_to_piece(i), processor.get_score(i), NORMAL
        if processor.is_unknown(i):
            kind = UNKNOWN
        elif processor.is_control(i):
            kind = CONTROL
        elif processor.is_byte(i):
            kind = BYTE
        elif piece == "<table>":
            kind, score = USER_DEFINED, -1000.0
        elif is_gemma and len(piece) > 1 and not piece.strip("\u2581"):
            piece, kind, score = " " * len(piece), USER_DEFINED, -1000.0
        tokens.append(piece)
        scores.append(score)
        kinds.append(kind)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    writer.add_unk_token_id(processor.unk_id())
    if is_gemma:
        writer.add_add_space_prefix(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
