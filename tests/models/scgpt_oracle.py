"""scGPT's encoder written with torch's own layers, with the released names; and folders as they are released."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

SIZES = dict(embsize=32, d_hid=48, nlayers=3, nheads=4)
GENES = [f"GENE{i}" for i in range(60)]


class ValueEncoder(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.linear1, self.linear2, self.norm = nn.Linear(1, dim), nn.Linear(dim, dim), nn.LayerNorm(dim)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear2(torch.relu(self.linear1(values.clamp(max=512.0).unsqueeze(-1)))))


class GeneEncoder(nn.Module):
    def __init__(self, size: int, dim: int):
        super().__init__()
        self.embedding, self.enc_norm = nn.Embedding(size, dim), nn.LayerNorm(dim)

    def forward(self, genes: torch.Tensor) -> torch.Tensor:
        return self.enc_norm(self.embedding(genes))


class Reference(nn.Module):
    """Genes and values, each through its encoder, added, through post-normed layers."""

    def __init__(self, size: int = len(GENES) + 3, seed: int = 0):
        super().__init__()
        dim = SIZES["embsize"]
        self.encoder, self.value_encoder = GeneEncoder(size, dim), ValueEncoder(dim)
        layer = nn.TransformerEncoderLayer(dim, SIZES["nheads"], SIZES["d_hid"], dropout=0.0, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, SIZES["nlayers"], enable_nested_tensor=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if "norm" in name and name.endswith("weight"):
                    parameter.uniform_(0.5, 1.5, generator=generator)
                else:
                    parameter.normal_(0.0, 0.3, generator=generator)
        self.eval()

    def forward(self, genes: torch.Tensor, values: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.encoder(genes) + self.value_encoder(values)
            return self.transformer_encoder(x, src_key_padding_mask=padding)


def tensors(model: Reference, fast: bool) -> dict[str, Any]:
    """Of a released file: with the names of fast attention or torch's, and a decoder that is not read."""
    state = {
        name.replace("in_proj_", "Wqkv.") if fast else name: value.clone() for name, value in model.state_dict().items()
    }
    return state | {"decoder.fc.0.weight": torch.ones(3, 3), "flag_encoder.weight": torch.ones(2, 4)}


def write_folder(folder: Path, model: Reference, *, fast: bool = True, **args: Any) -> Path:
    folder.mkdir()
    vocabulary = {gene: i for i, gene in enumerate([*GENES, "<pad>", "<cls>", "<eoc>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    released = {"n_bins": 51, "pad_value": -2, "input_emb_style": "continuous", "max_seq_len": 1200}
    (folder / "args.json").write_text(json.dumps({**SIZES, **released, **args}))
    torch.save(tensors(model, fast), folder / "best_model.pt")
    return folder
