"""Where tensors stand: components and blocks by the names that families give them, no table of architectures."""

from __future__ import annotations

import pytest

from soup.hf.places import Place, component_kind, places_of

NAMES = {
    "model.visual.blocks.3.attn.qkv.weight": "vision",  # Qwen2-VL and later
    "visual.merger.mlp.0.weight": "projector",
    "model.visual.deepstack_merger_list.0.linear_fc1.weight": "projector",
    "model.language_model.layers.11.mlp.up_proj.weight": "llm",
    "model.language_model.embed_tokens.weight": "embeddings",
    "lm_head.weight": "embeddings",
    "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight": "vision",  # LLaVA
    "multi_modal_projector.linear_1.weight": "projector",
    "language_model.model.layers.1.self_attn.q_proj.weight": "llm",
    "model.image_newline": "vision",
    "vision_model.encoder.layers.1.attn.qkv.weight": "vision",  # InternVL
    "mlp1.1.weight": "projector",
    "model.connector.modality_projection.proj.weight": "projector",  # Idefics3
    "model.text_model.layers.2.input_layernorm.weight": "llm",
    "model.layers.0.mlp.gate_proj.weight": "llm",  # a language model alone
    "model.norm.weight": "llm",
    "transformer.h.7.attn.weight": "llm",
    "audio_tower.layers.0.weight": "other",
    "model.multi_modal_projector.mm_input_projection_weight": "projector",  # Gemma 3
    "vpm.encoder.layers.0.self_attn.q_proj.weight": "vision",  # MiniCPM-V and MiniCPM-o, by their own code
    "resampler.attn.in_proj_weight": "projector",
    "llm.model.layers.0.mlp.down_proj.weight": "llm",
    "apm.layers.0.fc1.weight": "other",
    "tts.model.layers.0.mlp.down_proj.weight": "other",
    "model.vision_embed_tokens.img_processor.vision_model.encoder.layers.0.mlp.fc1.weight": "vision",  # Phi-3-vision
    "model.vision_embed_tokens.img_projection.0.weight": "projector",
    "model.vision_embed_tokens.glb_GN": "projector",
    "model.embed_tokens_extend.image_embed.img_processor.encoder.layers.0.mlp.fc1.weight": "vision",  # Phi-4-multimodal
    "model.embed_tokens_extend.image_embed.img_projection_up.weight": "projector",
    "visual_tokenizer.backbone.trunk.blocks.0.attn.qkv.weight": "vision",  # Ovis
    "visual_tokenizer.head.0.weight": "vision",
    "model.qwen2vl_vision_tower.blocks.0.attn.qkv.weight": "vision",  # Valley
    "vision2text_model.linear_1.weight": "projector",  # mPLUG-Owl3
    "gen_vision_model.decoder.conv_in.weight": "other",  # Janus' generator of pictures
    "gen_aligner.layers.0.weight": "other",
    "model.vision_backbone.image_vit.transformer.resblocks.0.attention.wq.weight": "vision",  # Molmo
    "model.vision_backbone.image_projector.w1.weight": "projector",
    "model.transformer.blocks.0.att_proj.weight": "llm",
    "model.transformer.blocks.0.ff_out.weight": "llm",
    "model.transformer.ff_out.weight": "embeddings",
    "model.transformer.wte.new_embedding": "embeddings",
    "language_model.output.weight": "embeddings",  # InternLM2's head, within InternVL and InternLM-XComposer
    "language_model.model.layers.0.attention.output.weight": "llm",
    "output.weight": "embeddings",
    "transformer.output_layer.weight": "embeddings",  # GLM-4V, by its own code
    "gpt_neox.embed_in.weight": "embeddings",
    "something.else": "other",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_words_of_a_name_say_which_component_it_belongs_to(name):
    assert component_kind(name) == NAMES[name]


def test_blocks_are_counted_by_stack_and_11_is_not_1():
    names = [
        *(f"model.visual.blocks.{n}.attn.weight" for n in range(3)),
        *(f"model.language_model.layers.{n}.mlp.experts.4.weight" for n in range(12)),
        "model.language_model.norm.weight",
        "model.visual.merger.mlp.0.weight",
    ]
    places = places_of(names)
    assert places["model.visual.blocks.1.attn.weight"] == Place("vision", 1, 3)
    assert places["model.language_model.layers.11.mlp.experts.4.weight"] == Place("llm", 11, 12)
    assert places["model.language_model.layers.1.mlp.experts.4.weight"] == Place("llm", 1, 12)
    assert places["model.language_model.norm.weight"] == Place("llm", 0, 0)
    assert places["model.visual.merger.mlp.0.weight"] == Place("projector", 0, 0)
