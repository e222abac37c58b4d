"""How the checkpoints of each architecture name and arrange their tensors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ExpertNames(BaseModel):
    """A mixture of experts: tensor names below `mlp.` and the configuration keys that size it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count_key: str = "n_routed_experts"
    router: str = "gate.weight"
    router_bias: str | None = "gate.e_score_correction_bias"
    router_bias_is_row: bool = False
    router_bias_size: float = 0.1
    shared: str | None = "shared_experts"
    shared_count_key: str = "n_shared_experts"


class Layout(BaseModel):
    """One architecture's tensors, as far as they differ from Llama's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent: bool = False
    interleaved: bool = False
    head_norms: tuple[str, ...] = ()
    biased: tuple[str, ...] = ()
    experts: ExpertNames | None = None
    first_expert: int = 0
    generates: bool = True
    scores: bool = False


_SIGMOID_EXPERTS = ExpertNames()

LLAMA = Layout()
QWEN2 = Layout(biased=("q_proj", "k_proj", "v_proj"))
QWEN3 = Layout(head_norms=("q_norm", "k_norm"))
QWEN3_EMBEDDING = QWEN3.model_copy(update={"generates": False})
QWEN3_RERANKER = QWEN3.model_copy(update={"generates": False, "scores": True})
QWEN3_MOE = QWEN3.model_copy(
    update={"experts": ExpertNames(count_key="num_experts", router_bias=None, shared=None)}
)
HUNYUAN = Layout(head_norms=("query_layernorm", "key_layernorm"))
HY_V3 = QWEN3.model_copy(
    update={
        "experts": ExpertNames(
            count_key="num_experts",
            router="router.gate.weight",
            router_bias="expert_bias",
            shared="shared_mlp",
            shared_count_key="num_shared_experts",
        )
    }
)
ERNIE = Layout(interleaved=True)
ERNIE_MOE = Layout(
    interleaved=True,
    first_expert=1,
    experts=ExpertNames(
        count_key="moe_num_experts",
        router_bias="moe_statics.e_score_correction_bias",
        router_bias_is_row=True,
        # vLLM 0.32 on the CPU differs from transformers for other values (log-probabilities by 0.05).
        router_bias_size=0.0,
        shared_count_key="moe_num_shared_experts",
    ),
)
PANGU = Layout(biased=("q_proj", "k_proj", "v_proj", "o_proj"))
GLM4_MOE = QWEN3.model_copy(update={"experts": _SIGMOID_EXPERTS})
DEEPSEEK_V3 = Layout(latent=True, interleaved=True, experts=_SIGMOID_EXPERTS)
