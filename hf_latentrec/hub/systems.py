"""The published systems that a model can be, as data for cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class System:
    """
    A published system.

    Args:
        name (`str`): what people call it.
        summary (`str`): what it is, in two sentences.
        title (`str`, *optional*): of the paper.
        authors (`tuple[str]`, *optional*): as `"Family, Given"`; the last may be `"others"`.
        year (`int`, *optional*): of publication.
        arxiv (`str`, *optional*): its number there.
        tags (`tuple[str]`, *optional*): for the Hub.
    """

    name: str
    summary: str
    title: str | None = None
    authors: tuple[str, ...] = ()
    year: int | None = None
    arxiv: str | None = None
    tags: tuple[str, ...] = ()

    def bibtex(self, key: str) -> str | None:
        """
        The paper as an entry for BibTeX, None where there is no paper.

        Example:
            >>> print(SYSTEMS["lares"].bibtex("lares"))
            @misc{lares,
              title = {Latent Reasoning with Recurrent Depth for Sequential Recommendation},
              author = {{Anonymous authors}},
            }
        """
        if self.title is None:
            return None
        fields = {
            "title": self.title,
            "author": " and ".join(self.authors),
            "year": self.year,
            "eprint": self.arxiv,
            "archivePrefix": self.arxiv and "arXiv",
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        return "\n".join([f"@misc{{{key},", *lines, "}"])


_LATENT = ("latent-reasoning", "generative-recommendation")
_ITEM_IDS = ("item-ids",)

SYSTEMS: dict[str, System] = {
    "lasar": System(
        "LASAR",
        "A language model reads the semantic IDs of a history, thinks in its hidden space for as many steps as a "
        "policy head asks for, and writes the semantic ID of the next item. Fine-tuning first grounds the IDs and "
        "then aligns the thoughts with the text of a teacher; reinforcement learning follows.",
        "LASAR: Latent Adaptive Semantic Aligned Reasoning for Generative Recommendation",
        (
            "Chen, Yiwen",
            "Zhang, Fuwei",
            "Chen, Zehao",
            "Wang, Deqing",
            "Li, Hehan",
            "Xu, Peizhi",
            "Liu, Hanmeng",
            "Li, Shuanglong",
            "Pei, Xin",
            "Zhuang, Fuzhen",
            "Zhang, Zhao",
        ),
        tags=("lasar", *_LATENT, "semantic-ids"),
    ),
    "latentr3": System(
        "LatentR³",
        "A language model reads the titles of a history, makes one thought with an attention layer over its own "
        "hidden states, and writes the title of the next item. Fine-tuning is followed by reinforcement learning of"
        " the thought alone, rewarded by how likely it makes the target.",
        "Reinforced Latent Reasoning for LLM-based Recommendation",
        ("{Anonymous authors}",),
        tags=("latentr3", *_LATENT, "item-titles"),
    ),
    "flr": System(
        "FLR",
        "A language model reads the titles of a history and makes one thought out of several factors, each of which"
        " attends to the history in its own way and is refined in place. Three regularizers keep the factors apart,"
        " and reinforcement learning over perturbed thoughts follows.",
        "Factorized Latent Reasoning for LLM-based Recommendation",
        ("Gao, Tianqi", "Huang, Chengkai", "Wang, Zihan", "Liu, Cao", "Zeng, Ke", "Yao, Lina"),
        2026,
        "2604.26760",
        ("flr", *_LATENT, "item-titles"),
    ),
    "lares": System(
        "LARES",
        "A recurrent block refines the states of a whole history of item ids from a random start, for any number of"
        " steps and with the same weights in each. It is pre-trained with two alignments of these steps and then "
        "post-trained by reinforcement learning.",
        "Latent Reasoning with Recurrent Depth for Sequential Recommendation",
        ("{Anonymous authors}",),
        tags=("lares", "latent-reasoning", *_ITEM_IDS),
    ),
    "minionerec": System(
        "MiniOneRec",
        "A language model reads the semantic IDs of a history and writes that of the next item, without thoughts. "
        "It is the control of LASAR.",
        "MiniOneRec: An Open-Source Framework for Scaling Generative Recommendation",
        year=2025,
        tags=("minionerec", "generative-recommendation", "semantic-ids"),
    ),
    "bigrec": System(
        "BIGRec",
        "A language model reads the titles of a history and writes that of the next item, without thoughts. It is "
        "the control of LatentR³ and FLR.",
        "A Bi-Step Grounding Paradigm for Large Language Models in Recommendation Systems",
        ("Bao, Keqin", "others"),
        2025,
        tags=("bigrec", "generative-recommendation", "item-titles"),
    ),
    "sasrec": System(
        "SASRec",
        "A causal transformer over item ids: the state after the last item of a history scores all items. Every "
        "position of a history learns the item that follows it.",
        "Self-Attentive Sequential Recommendation",
        ("Kang, Wang-Cheng", "McAuley, Julian"),
        2018,
        tags=("sasrec", *_ITEM_IDS),
    ),
    "gru4rec": System(
        "GRU4Rec",
        "A recurrent network of gated units reads the item ids of a history. Its last state scores all items.",
        "Session-based Recommendations with Recurrent Neural Networks",
        ("Hidasi, Balázs", "Karatzoglou, Alexandros", "Baltrunas, Linas", "Tikk, Domonkos"),
        2016,
        tags=("gru4rec", *_ITEM_IDS),
    ),
    "caser": System(
        "Caser",
        "The newest items of a history are an image that horizontal and vertical convolutions read. What they find "
        "scores all items.",
        "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding",
        ("Tang, Jiaxi", "Wang, Ke"),
        2018,
        tags=("caser", *_ITEM_IDS),
    ),
    "bert4rec": System(
        "BERT4Rec",
        "A bidirectional transformer over item ids learns to fill in masked items. To recommend, the place after "
        "the history is masked.",
        "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer",
        ("Sun, Fei", "others"),
        2019,
        tags=("bert4rec", *_ITEM_IDS),
    ),
    "fmlp": System(
        "FMLP-Rec",
        "In place of attention, learned filters in the frequency domain mix the positions of a history. The rest is"
        " a stack of feed-forward blocks.",
        "Filter-enhanced MLP is All You Need for Sequential Recommendation",
        ("Zhou, Kun", "Yu, Hui", "Zhao, Wayne Xin", "Wen, Ji-Rong"),
        2022,
        tags=("fmlp-rec", *_ITEM_IDS),
    ),
    "bsarec": System(
        "BSARec",
        "A transformer over item ids whose attention is joined by a branch in the frequency domain. That branch "
        "scales high frequencies apart from low ones, which attention alone would smooth away.",
        "An Attentive Inductive Bias for Sequential Recommendation beyond the Self-Attention",
        ("Shin, Yehjin", "Choi, Jeongwhan", "Wi, Hyowon", "Park, Noseong"),
        2024,
        tags=("bsarec", *_ITEM_IDS),
    ),
    "cl4srec": System(
        "CL4SRec",
        "SASRec with a contrastive loss beside its own. Two random changes of a history (crop, mask, reorder) are "
        "to have like states.",
        "Contrastive Learning for Sequential Recommendation",
        ("Xie, Xu", "others"),
        2022,
        tags=("cl4srec", *_ITEM_IDS),
    ),
    "duorec": System(
        "DuoRec",
        "SASRec with a contrastive loss beside its own. A history is compared with itself under another dropout, "
        "and with a history that has the same next item.",
        "Contrastive Learning for Representation Degeneration Problem in Sequential Recommendation",
        ("Qiu, Ruihong", "Huang, Zi", "Yin, Hongzhi", "Wang, Zijian"),
        2022,
        tags=("duorec", *_ITEM_IDS),
    ),
    "tedrec": System(
        "TedRec",
        "Item ids and item texts are fused in the frequency domain, over the whole sequence. A transformer reads "
        "the outcome.",
        "Sequence-level Semantic Representation Fusion for Recommender Systems",
        ("Xu, Lanling", "others"),
        2024,
        tags=("tedrec",),
    ),
    "rearec": System(
        "ReaRec",
        "After a history, a SASRec feeds its last state back to itself for a few steps before it scores the items. "
        "Its variants, ERL and PRL, differ in what these steps learn.",
        "Think Before Recommend: Unleashing the Latent Reasoning Power for Sequential Recommendation",
        ("Tang, Jiakai", "others"),
        2025,
        tags=("rearec", "latent-reasoning", *_ITEM_IDS),
    ),
    "popularity": System(
        "popularity",
        "Recommends everybody the items that occur most often in the training data. Nothing is learned.",
        tags=("popularity",),
    ),
    "item_knn": System(
        "item-KNN",
        "Scores an item by how many people it shares with the items of a history, in cosine similarities of its "
        "nearest neighbours. They are counted, not learned.",
        "Item-based Collaborative Filtering Recommendation Algorithms",
        ("Sarwar, Badrul", "Karypis, George", "Konstan, Joseph", "Riedl, John"),
        2001,
        tags=("item-knn",),
    ),
}

# Recommenders of item ids, by the `model_type` of their configuration.
_OF_MODEL_TYPE = {
    "lares": "lares",
    "bert4rec": "bert4rec",
    "bsarec": "bsarec",
    "caser": "caser",
    "fmlp_rec": "fmlp",
    "gru4rec": "gru4rec",
    "item_knn_rec": "item_knn",
    "popularity_rec": "popularity",
    "rearec": "rearec",
    "sasrec": "sasrec",
    "tedrec": "tedrec",
}
_OF_REASONER = {"latent_attention": "latentr3", "factorized_attention": "flr"}
_WITHOUT_THOUGHTS = {"semantic_id": "minionerec", "title": "bigrec"}


def system_of(
    config: PreTrainedConfig,
    item_tokenization: str | None = None,
    trainer_class: str | None = None,
    training_args: Any = None,
) -> str | None:
    """
    Which published system a model is, by what its configuration and its trainer declare.

    Args:
        config (`PreTrainedConfig`): of the model.
        item_tokenization (`str`, *optional*): what the answers of a language model are made of.
        trainer_class (`str`, *optional*): the name of the class that trained it.
        training_args (`TrainingArguments`, *optional*): what it was trained with.

    Returns:
        `str` or `None`: a key of `SYSTEMS`; None where it is none of them, as thoughts that are fed back but were
        trained neither with a policy of their number nor by a trainer of LASAR.

    Example:
        >>> from hf_latentrec import LaresConfig, Qwen3LatentRecConfig
        >>> system_of(LaresConfig(num_items=3))
        'lares'
        >>> system_of(Qwen3LatentRecConfig(reasoner_config={"reasoner": "latent_attention", "num_thoughts": 1}))
        'latentr3'
    """
    if config.model_type in _OF_MODEL_TYPE:
        system = _OF_MODEL_TYPE[config.model_type]
        contrastive = getattr(training_args, "contrastive", "none") if system == "sasrec" else "none"
        return contrastive if contrastive in SYSTEMS else system
    reasoner = getattr(config, "reasoner_config", None)
    if reasoner is None:
        return None
    if reasoner.num_thoughts == 0:
        return _WITHOUT_THOUGHTS.get(item_tokenization)
    if reasoner.reasoner in _OF_REASONER:
        return _OF_REASONER[reasoner.reasoner]
    is_lasar = reasoner.adaptive_depth or (trainer_class or "").startswith("LASAR")
    return "lasar" if is_lasar else None


__all__ = ["SYSTEMS", "System", "system_of"]
