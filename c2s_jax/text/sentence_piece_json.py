"""A SentencePiece model as Hugging Face ``tokenizer.json``, for programs that read only those."""

from collections.abc import Iterator, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, processors

from c2s_jax.text.sentence_piece import SentencePieceTokenizer
from c2s_jax.text.tokenizer import read_bytes

_UNIGRAM, _BPE = 1, 2  # TrainerSpec.ModelType
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # SentencePiece.Type
_USER_DEFINED_SCORE = -0.1  # what SentencePiece's unigram search gives those pieces, whatever the file says
_CHECKED_PIECES = 8


def to_hugging_face(tokenizer: SentencePieceTokenizer) -> str:
    """Content of a ``tokenizer.json`` with the same pieces and ids, which begins sequences with the same id.

    A unigram model may cut a long run of spaces at another place: equally good cuts are told apart by rounding.
    Programs that do not ask otherwise read special tokens from text, as everywhere in that library.

    Raises
    ------
    ValueError
        If the model is of a kind that cannot be written so, or the result would give other ids.
    ImportError
        If the installed sentencepiece and protobuf do not fit together.
    """
    proto = _model(read_bytes(tokenizer.path))
    kind, pieces = proto.trainer_spec.model_type, list(proto.pieces)
    if kind not in (_UNIGRAM, _BPE):
        raise ValueError(f"{tokenizer.path} is neither a unigram nor a BPE model: no tokenizer.json can be written")
    unknown = next(i for i, piece in enumerate(pieces) if piece.type == _UNKNOWN)
    result = tokenizers.Tokenizer(_unigram(pieces, unknown) if kind == _UNIGRAM else _bpe(pieces, unknown))
    result.normalizer = normalizers.Replace(" ", "▁")
    result.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bos = tokenizer.piece(tokenizer.bos_id)
    result.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.bos_id)]
    )
    added = (_UNKNOWN, _CONTROL) if kind == _UNIGRAM else (_UNKNOWN, _CONTROL, _USER_DEFINED)
    result.add_tokens(
        [
            tokenizers.AddedToken(p.piece, normalized=p.type == _USER_DEFINED, special=p.type != _USER_DEFINED)
            for p in pieces
            if p.type in added
        ]
    )
    _verify(tokenizer, result, pieces)
    return result.to_str()


def _model(content: bytes) -> Any:
    """A parsed model file. What parses it is imported here, where it is needed: it may be newer than protobuf."""
    try:
        import sentencepiece.sentencepiece_model_pb2 as sentencepiece_proto
    except Exception as error:  # protobuf's own kind of error
        raise ImportError(
            "to write a tokenizer.json of a SentencePiece model, sentencepiece and protobuf must fit together: "
            'pip install "protobuf>=7", or "sentencepiece<0.2.2" where another package holds protobuf back'
        ) from error
    proto = sentencepiece_proto.ModelProto()  # defined at import
    proto.ParseFromString(content)
    return proto


def _unigram(pieces: Sequence[Any], unknown: int) -> models.Unigram:
    # Control and byte pieces never compete, but the lowest score of all sets the price of unknown text.
    lowest = min(p.score for p in pieces if p.type == _NORMAL)

    def score(piece: Any) -> float:
        if piece.type == _NORMAL:
            return piece.score
        return _USER_DEFINED_SCORE if piece.type == _USER_DEFINED else lowest

    vocabulary = [(piece.piece, score(piece)) for piece in pieces]
    return models.Unigram(vocabulary, unk_id=unknown, byte_fallback=True)


def _bpe(pieces: Sequence[Any], unknown: int) -> models.BPE:
    """Every way to put a piece together from two others is a merge; pieces with higher scores come first."""
    ids = {piece.piece: i for i, piece in enumerate(pieces)}
    normal = {piece.piece for piece in pieces if piece.type == _NORMAL}

    def merges() -> Iterator[tuple[float, int, int, str, str]]:
        for piece in pieces:
            text = piece.piece
            for cut in range(1, len(text) if piece.type == _NORMAL else 0):
                left, right = text[:cut], text[cut:]
                if left in normal and right in normal:
                    yield -piece.score, ids[left], ids[right], left, right

    ordered = [(left, right) for *_, left, right in sorted(merges())]
    return models.BPE(ids, ordered, unk_token=pieces[unknown].piece, fuse_unk=True, byte_fallback=True)


def _verify(tokenizer: SentencePieceTokenizer, result: tokenizers.Tokenizer, pieces: Sequence[Any]) -> None:
    """Compare both on texts made of neighbouring pieces, as a test that every piece is reached."""
    words = [p.piece.replace("▁", " ") for p in pieces if p.type == _NORMAL]
    texts = ["".join(words[i : i + _CHECKED_PIECES]) for i in range(0, len(words), _CHECKED_PIECES)] + words
    encodings = result.encode_batch_fast(texts, add_special_tokens=False)
    for text, expected, found in zip(texts, tokenizer.encode_batch(texts), encodings):
        if expected != found.ids:
            raise ValueError(
                f"{tokenizer.path} cannot be written as tokenizer.json: {text!r} would be {found.ids}, not {expected}"
            )
