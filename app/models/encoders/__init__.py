"""Encoders as HTTP threads see them: texts to token ids, and what came of them to answers."""
