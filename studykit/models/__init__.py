"""Students, teachers and tokenizers: found, loaded, and reached the same way in every wrapper."""
