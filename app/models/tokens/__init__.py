"""Between text and token ids: vocabulary, chat templates, infilling formats."""
