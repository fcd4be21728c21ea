// Package adapters reads, writes, trains and merges parameter-efficient adapters in PEFT's layout.
//
// A method is one file with one formula: [Method.Weight] maps a module's weight W [out, in] to the
// adapted weight of the same shape; a convolution's kernel counts as input. Prediction, training and
// merging are tested to compute it. With s = alpha/r, a trained tensor in each letter that is not W:
//
//	LORA     W + s·B·A                      A [r, in], B [out, r]; use_rslora: s = alpha/√r
//	         m ⊙ V/‖V‖, V = W + s·B·A       use_dora: m [out], norms of rows
//	LOHA     W + s·(A₁·B₁) ⊙ (A₂·B₂)        Aᵢ [out, r], Bᵢ [r, in]
//	LOKR     W + s·(C ⊗ D)                  C [l, m], D [out/l, in/m], or products of rank r
//	ADALORA  W + s·B·(E ⊙ A)                E [r, 1], which training prunes; s = alpha/(init_r + 10⁻⁵)
//	IA3      l ⊙ W                          l [out, 1], scaling the bias too, or in feedforward modules [1, in]
//
// With use_effective_conv2d, LoHa's products and LoKr's D of a convolution are those of a core
// [r, r, height, width] with two matrices: T ×₁ A ×₂ B.
//
//	LoRA      Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"
//	rsLoRA    Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA"
//	DoRA      Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation"
//	LoHa      Hyeon-Woo et al. 2022, "FedPara: Low-Rank Hadamard Product for Communication-Efficient
//	          Federated Learning"
//	LoKr      Yeh et al. 2024, "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to
//	          Model Evaluation"; Edalati et al. 2022, "KronA"
//	AdaLoRA   Zhang et al. 2023, "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient
//	          Fine-Tuning"
//	(IA)³     Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than
//	          In-Context Learning"
//
// A new method is a type in a file of its own, a line in the table of method.go, its settings in the
// test that runs package adapterstest on every method, and golden adapters made by PEFT. The optional
// interfaces beside [Method] say what else a method may want: a cheaper way forward, parameters that
// begin as a function of the base, ranks that change while it is trained.
//
// An [Adapter] is a method applied to the modules that a config targets, with its parameters. The
// package does not know models: it is told a base's modules and tensors in [Base].
package adapters
