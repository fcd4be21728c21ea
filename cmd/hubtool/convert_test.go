package main

import "testing"

func TestKohyaModule(t *testing.T) {
	for _, c := range []struct{ prefix, module, want string }{
		{"", "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0", "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0"},
		{"", "text_model.encoder.layers.3.self_attn.q_proj", "lora_te_text_model_encoder_layers_3_self_attn_q_proj"},
		{"", "encoder.layers.3.self_attn.q_proj", "lora_te_text_model_encoder_layers_3_self_attn_q_proj"},
		{"lora_te1", "encoder.layers.3.mlp.fc1", "lora_te1_text_model_encoder_layers_3_mlp_fc1"},
		{"lora_te2", "text_model.encoder.layers.3.mlp.fc1", "lora_te2_text_model_encoder_layers_3_mlp_fc1"},
	} {
		if got := kohyaModule(c.prefix, c.module); got != c.want {
			t.Errorf("%q of prefix %q is %q, want %q", c.module, c.prefix, got, c.want)
		}
	}
}
