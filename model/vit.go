package model

import (
	"fmt"
	"math"

	"github.com/gomlx/gomlx/core/graph"

	"github.com/hubtool/hubtool/format"
	"github.com/hubtool/hubtool/model/ops"
)

// vit is the Vision Transformer for image classification, transformers' ViTForImageClassification.
// Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words".
type vit struct {
	image, patch, grid [2]int // height and width: of the image, of a patch, and how many patches

	channels, hidden, layers, heads, mlp, labels int

	eps                             float64
	qkvBias                         bool
	hiddenDropout, attentionDropout float64
	activation                      func(*ops.Tape, *graph.Node) *graph.Node
}

// activations are the values of hidden_act.
var activations = map[string]func(*ops.Tape, *graph.Node) *graph.Node{
	"gelu":              ops.Gelu,
	"gelu_new":          tanhGelu,
	"gelu_pytorch_tanh": tanhGelu,
	"relu":              func(_ *ops.Tape, x *graph.Node) *graph.Node { return graph.MaxScalar(x, 0) },
	"silu":              ops.Silu,
}

// tanhGelu is the approximation of GELU by tanh. GoMLX's own is exact in places.
func tanhGelu(_ *ops.Tape, x *graph.Node) *graph.Node {
	inner := graph.Add(x, graph.MulScalar(graph.Mul(graph.Square(x), x), 0.044715))
	inner = graph.Tanh(graph.MulScalar(inner, math.Sqrt(2/math.Pi)))
	return graph.Mul(graph.MulScalar(x, 0.5), graph.AddScalar(inner, 1))
}

func newViT(cfg *format.ModelConfig, labels int) (Model, error) {
	m := &vit{
		image: cfg.ImageSize, patch: cfg.PatchSize,
		channels: cfg.NumChannels, hidden: cfg.HiddenSize, layers: cfg.NumHiddenLayers,
		heads: cfg.NumAttentionHeads, mlp: cfg.IntermediateSize, labels: labels,
		eps: cfg.LayerNormEps, qkvBias: cfg.QKVBias,
		hiddenDropout: cfg.HiddenDropout, attentionDropout: cfg.AttentionDropout,
		activation: activations[cfg.HiddenAct],
	}
	fail := func(why string, args ...any) (Model, error) {
		return nil, fmt.Errorf("building a ViT: %w: "+why, append([]any{format.ErrConfig}, args...)...)
	}
	for i, axis := range []string{"height", "width"} {
		if m.patch[i] < 1 || m.image[i] < m.patch[i] {
			return fail("images of %s %d have no patch of %d", axis, m.image[i], m.patch[i])
		}
		m.grid[i] = m.image[i] / m.patch[i]
	}
	switch {
	case m.channels < 1 || m.hidden < 1 || m.layers < 1 || m.heads < 1 || m.mlp < 1:
		return fail("num_channels, hidden_size, num_hidden_layers, num_attention_heads and intermediate_size must be positive")
	case m.hidden%m.heads != 0:
		return fail("hidden_size %d is not a multiple of num_attention_heads %d", m.hidden, m.heads)
	case m.activation == nil:
		return fail("hidden_act %q is not known", cfg.HiddenAct)
	}
	return m, nil
}

func (m *vit) Type() string          { return "vit" }
func (m *vit) Head() string          { return "classifier" }
func (m *vit) Labels() int           { return m.labels }
func (m *vit) InputSize() (h, w int) { return m.image[0], m.image[1] }
func (m *vit) tokens() int           { return m.grid[0]*m.grid[1] + 1 }

func (m *vit) Cost() float64 {
	t, h := float64(m.tokens()), float64(m.hidden)
	return float64(m.layers) * (8*t*h*h + 4*t*h*float64(m.mlp) + 4*t*t*h)
}

func layerName(i int) string { return fmt.Sprintf("vit.encoder.layer.%d.", i) }

func (m *vit) Parameters() []Parameter {
	var ps []Parameter
	add := func(name string, shape ...int) { ps = append(ps, Parameter{name, shape}) }
	linear := func(name string, in, out int, bias bool) {
		add(name+".weight", out, in)
		if bias {
			add(name+".bias", out)
		}
	}
	norm := func(name string) {
		add(name+".weight", m.hidden)
		add(name+".bias", m.hidden)
	}
	add("vit.embeddings.cls_token", 1, 1, m.hidden)
	add("vit.embeddings.position_embeddings", 1, m.tokens(), m.hidden)
	add("vit.embeddings.patch_embeddings.projection.weight", m.hidden, m.channels, m.patch[0], m.patch[1])
	add("vit.embeddings.patch_embeddings.projection.bias", m.hidden)
	for i := range m.layers {
		layer := layerName(i)
		norm(layer + "layernorm_before")
		for _, part := range []string{"query", "key", "value"} {
			linear(layer+"attention.attention."+part, m.hidden, m.hidden, m.qkvBias)
		}
		linear(layer+"attention.output.dense", m.hidden, m.hidden, true)
		norm(layer + "layernorm_after")
		linear(layer+"intermediate.dense", m.hidden, m.mlp, true)
		linear(layer+"output.dense", m.mlp, m.hidden, true)
	}
	norm("vit.layernorm")
	linear("classifier", m.hidden, m.labels, true)
	return ps
}

func (m *vit) Modules() []string {
	names := []string{"vit.embeddings.patch_embeddings.projection"}
	for i := range m.layers {
		for _, part := range []string{"attention.attention.query", "attention.attention.key",
			"attention.attention.value", "attention.output.dense", "intermediate.dense", "output.dense"} {
			names = append(names, layerName(i)+part)
		}
	}
	return append(names, "classifier")
}

func (m *vit) Width() int { return m.hidden }

func (m *vit) Drops() bool { return m.hiddenDropout > 0 || m.attentionDropout > 0 }

// Features keeps activations as [n·tokens, hidden], the form in which every linear layer is one
// plain product. Only the class token reaches the head, so the last layer computes just that row.
func (m *vit) Features(p *Params, images *graph.Node) *graph.Node {
	n := images.Shape().Dimensions[0]
	x := m.embed(p, images) // [n·tokens, hidden]
	for i := range m.layers {
		queries := m.tokens()
		if i == m.layers-1 {
			queries = 1
		}
		x = m.layer(p, p.Layer(x), n, queries, layerName(i))
	}
	x = p.End(x)
	return p.LayerNorm("vit.layernorm", x, m.eps) // [n, hidden]
}

func (m *vit) Classify(p *Params, features *graph.Node) *graph.Node {
	return p.Linear("classifier", features)
}

// embed cuts images into patches, projects them and puts the class token before them.
func (m *vit) embed(p *Params, images *graph.Node) *graph.Node {
	n, gh, gw, ph, pw := images.Shape().Dimensions[0], m.grid[0], m.grid[1], m.patch[0], m.patch[1]
	// A border narrower than a patch is not seen, as by a convolution without padding.
	x := graph.Slice(images, graph.AxisRange(), graph.AxisRange(), graph.AxisRange(0, gh*ph), graph.AxisRange(0, gw*pw))
	x = graph.Reshape(x, n, m.channels, gh, ph, gw, pw)
	x = graph.Reshape(graph.TransposeAllAxes(x, 0, 2, 4, 1, 3, 5), n*gh*gw, m.channels*ph*pw)
	x = graph.Reshape(p.Linear("vit.embeddings.patch_embeddings.projection", x), n, gh*gw, m.hidden)

	cls := graph.BroadcastToDims(p.Tensor("vit.embeddings.cls_token"), n, 1, m.hidden)
	x = graph.Add(graph.Concatenate([]*graph.Node{cls, x}, 1), p.Tensor("vit.embeddings.position_embeddings"))
	return graph.Reshape(p.Dropout(x, m.hiddenDropout), n*m.tokens(), m.hidden)
}

// layer is one pre-norm encoder layer over x [n·tokens, hidden]. Its result has the first `queries`
// tokens of each image.
func (m *vit) layer(p *Params, x *graph.Node, n, queries int, name string) *graph.Node {
	normed := p.LayerNorm(name+"layernorm_before", x, m.eps)
	x, asking := m.first(x, n, queries), m.first(normed, n, queries)

	attention := name + "attention.attention."
	project := func(part string, x *graph.Node) *graph.Node {
		return ops.SplitHeads(p.Tape(), p.Linear(attention+part, x), n, m.heads)
	}
	q, k, v := project("query", asking), project("key", normed), project("value", normed)
	o := ops.Attention(p.Tape(), q, k, v, func(weights *graph.Node) *graph.Node { return p.Dropout(weights, m.attentionDropout) })
	o = p.Linear(name+"attention.output.dense", ops.JoinHeads(p.Tape(), o, n))
	x = graph.Add(x, p.Dropout(o, m.hiddenDropout))

	y := p.LayerNorm(name+"layernorm_after", x, m.eps)
	y = m.activation(p.Tape(), p.Linear(name+"intermediate.dense", y))
	y = p.Linear(name+"output.dense", y)
	return graph.Add(x, p.Dropout(y, m.hiddenDropout))
}

// first keeps the first `queries` tokens of each image: [n·tokens, hidden] to [n·queries, hidden].
func (m *vit) first(x *graph.Node, n, queries int) *graph.Node {
	if queries == m.tokens() {
		return x
	}
	x = graph.Reshape(x, n, m.tokens(), m.hidden)
	x = graph.Slice(x, graph.AxisRange(), graph.AxisRange(0, queries), graph.AxisRange())
	return graph.Reshape(x, n*queries, m.hidden)
}
