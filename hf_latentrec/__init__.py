"""hf_latentrec: recommenders that think in latent space before they answer, for transformers and TRL."""
