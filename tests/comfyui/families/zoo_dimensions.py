"""Arguments of the small models' networks: two blocks of each kind, heads as wide as real ones."""

from __future__ import annotations

import torch

TEXT = 32
"""Width of the text of all models, except that of HiDream-O1, which takes words."""

POOLED = 32
"""Width of a pooled vector of the text."""

ROPE = dict(axes_dim=[16, 56, 56], theta=10000, qkv_bias=True)
WIDTH = dict(hidden_size=128, num_heads=1, depth=2, depth_single_blocks=2, mlp_ratio=2.0)
FLUX = dict(
    **dict(image_model="flux", in_channels=16, out_channels=16, patch_size=2, guidance_embed=True),
    **dict(vec_in_dim=POOLED, context_in_dim=TEXT, txt_ids_dims=[], **WIDTH, **ROPE),
)
NO_VECTOR = dict(vec_in_dim=None, txt_ids_dims=[1, 2], guidance_embed=False)
FLUX2 = dict(
    **dict(image_model="flux2", in_channels=128, out_channels=128, patch_size=1, theta=2000),
    **dict(axes_dim=[32] * 4, global_modulation=True, mlp_silu_act=True, qkv_bias=False),
    **dict(ops_bias=False, default_ref_method="index", ref_index_scale=10.0, txt_ids_dims=[3]),
    **dict(vec_in_dim=None, guidance_embed=False),
)
CHROMA = dict(
    **dict(image_model="chroma", in_channels=64, out_channels=64, patch_size=2, in_dim=64),
    **dict(out_dim=128, hidden_dim=32, n_layers=2, context_in_dim=TEXT, txt_ids_dims=[]),
    **dict(vec_in_dim=None, **WIDTH, **ROPE),
)
RADIANCE = dict(
    **dict(image_model="chroma_radiance", in_channels=3, out_channels=3, patch_size=16),
    **dict(nerf_hidden_size=8, nerf_mlp_ratio=2, nerf_depth=1, nerf_max_freqs=4, nerf_tile_size=64),
    **dict(nerf_final_head_type="conv", nerf_embedder_dtype=torch.float32, use_x0=False),
    **dict(use_sequential_txt_ids=False),
)
NEXT = dict(
    **dict(image_model="lumina2", patch_size=2, in_channels=16, n_layers=2, n_refiner_layers=2),
    **dict(qk_norm=True, cap_feat_dim=TEXT, multiple_of=32),
)
LUMINA = dict(
    **dict(dim=192, n_heads=2, n_kv_heads=1, axes_dims=[32] * 3, axes_lens=[300, 512, 512]),
    **dict(rope_theta=10000.0, ffn_dim_multiplier=1.0, **NEXT),
)
Z_IMAGE = dict(
    **dict(dim=256, n_heads=2, n_kv_heads=2, axes_dims=[32, 48, 48], axes_lens=[1536, 512, 512]),
    **dict(rope_theta=256.0, ffn_dim_multiplier=1.0, z_image_modulation=True, time_scale=1000.0),
    **dict(pad_tokens_multiple=32, **NEXT),
)
QWEN = dict(num_layers=2, num_attention_heads=1, joint_attention_dim=TEXT)
HUNYUAN = dict(
    **dict(image_model="hunyuan_video", in_channels=64, out_channels=64, patch_size=[1, 1]),
    **dict(vec_in_dim=None, context_in_dim=TEXT, guidance_embed=False, byt5=True, meanflow=False),
    **dict(use_cond_type_embedding=False, vision_in_dim=None, meanflow_sum=False, **WIDTH),
    **dict(axes_dim=[64, 64], theta=256, qkv_bias=True),
)
HUNYUAN_VIDEO = dict(
    **dict(in_channels=16, out_channels=16, patch_size=[1, 2, 2], vec_in_dim=POOLED, byt5=False),
    **dict(axes_dim=[16, 56, 56], guidance_embed=True),
)
HUNYUAN_VIDEO15 = dict(
    **dict(in_channels=65, out_channels=32, patch_size=[1, 1, 1], axes_dim=[16, 56, 56]),
    **dict(vision_in_dim=1152, use_cond_type_embedding=True),
)
WAN = dict(
    **dict(image_model="wan2.1", model_type="t2v", dim=128, num_heads=1, ffn_dim=128, num_layers=2),
    **dict(patch_size=(1, 2, 2), freq_dim=64, text_dim=TEXT, in_dim=16, out_dim=16),
    in_dim_ref_conv=16,
)
WAN_5B = dict(in_dim=48, out_dim=48, in_dim_ref_conv=48)
COSMOS = dict(
    **dict(max_img_h=240, max_img_w=240, max_frames=128, in_channels=16, out_channels=16),
    **dict(patch_spatial=2, patch_temporal=1, model_channels=128, num_heads=1, num_blocks=2),
    **dict(concat_padding_mask=True, crossattn_emb_channels=TEXT, pos_emb_cls="rope3d"),
    **dict(pos_emb_learnable=True, pos_emb_interpolation="crop", min_fps=1, max_fps=30),
    **dict(use_adaln_lora=True, adaln_lora_dim=32, extra_per_block_abs_pos_emb=False),
    **dict(rope_h_extrapolation_ratio=4.0, rope_w_extrapolation_ratio=4.0),
    **dict(rope_t_extrapolation_ratio=1.0, extra_h_extrapolation_ratio=1.0),
    **dict(extra_w_extrapolation_ratio=1.0, extra_t_extrapolation_ratio=1.0),
    **dict(rope_enable_fps_modulation=False),
)
GROUPED = dict(
    **dict(patch_size=2, in_channels=16, hidden_size=240, num_attention_heads=2, num_kv_heads=1),
    **dict(num_layers=2, num_refiner_layers=2, axes_dim_rope=[40] * 3, multiple_of=32),
    **dict(axes_lens=[1024, 1664, 1664], timestep_scale=1000.0),
)
JOY = dict(
    **dict(hidden_size=128, num_attention_heads=1, text_dim=TEXT, num_layers=2, theta=10000),
    **dict(image_model="joyimage", mlp_width_ratio=2.0, rope_dim_list=[16, 56, 56]),
)
HIDREAM = dict(
    **dict(image_model="hidream", patch_size=2, in_channels=16, out_channels=16, num_layers=2),
    **dict(num_single_layers=2, attention_head_dim=128, num_attention_heads=1),
    **dict(caption_channels=[TEXT, TEXT], text_emb_dim=POOLED, num_routed_experts=2),
    **dict(num_activated_experts=1, axes_dims_rope=[64, 32, 32], max_resolution=[128, 128]),
    **dict(llama_layers=[0, 1, 1, 0]),
)
HIDREAM_O1 = dict(
    image_model="hidream_o1",
    text_config_overrides=dict(
        **dict(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2),
        **dict(num_key_value_heads=1, head_dim=128),
    ),
    vision_config_overrides=dict(
        **dict(hidden_size=32, num_heads=1, intermediate_size=32, depth=1),
        **dict(deepstack_visual_indexes=()),
    ),
)
KREA2 = dict(
    **dict(image_model="krea2", features=256, heads=2, kvheads=1, multiplier=1, layers=2, tdim=32),
    **dict(txtdim=TEXT // 2, txtlayers=2, txtheads=1, txtkvheads=1),
)
KANDINSKY = dict(
    **dict(image_model="kandinsky5", in_visual_dim=16, out_visual_dim=16, in_text_dim=TEXT),
    **dict(in_text_dim2=POOLED, time_dim=32, model_dim=128, ff_dim=128, visual_embed_dim=64),
    **dict(num_text_blocks=2, num_visual_blocks=2, axes_dims=(16, 24, 24)),
)
AURA = dict(
    **dict(dim=256, n_heads=1, n_layers=4, n_double_layers=2, global_conddim=256),
    **dict(cond_seq_dim=TEXT, max_seq=32 * 32),
)
IDEOGRAM = dict(
    **dict(image_model="ideogram4", in_channels=128, num_layers=2, num_attention_heads=1),
    **dict(attention_head_dim=256, intermediate_size=128, adaln_dim=32, llm_features_dim=TEXT),
    **dict(rope_theta=5000000, mrope_section=[24, 20, 20], norm_eps=1e-5),
)
LENS = dict(
    **dict(image_model="lens", num_layers=2, num_attention_heads=1, enc_hidden_dim=TEXT // 2),
    **dict(selected_layer_index=(0, 1)),
)
PIXELDIT = dict(
    **dict(image_model="pixeldit_t2i", num_groups=1, hidden_size=64, pixel_hidden_size=16),
    **dict(pixel_attn_hidden_size=72, pixel_num_groups=1, patch_depth=2, pixel_depth=2),
    **dict(txt_embed_dim=TEXT, txt_max_length=128),
)
SD3 = dict(
    **dict(in_channels=16, out_channels=16, patch_size=2, depth=2, input_size=None),
    **dict(adm_in_channels=POOLED, context_size=TEXT, qk_norm="rms", pos_embed_max_size=32),
    **dict(num_patches=32 * 32, x_block_self_attn_layers=[0]),
    context_embedder_config=dict(
        target="torch.nn.Linear", params=dict(in_features=TEXT, out_features=128)
    ),
)
