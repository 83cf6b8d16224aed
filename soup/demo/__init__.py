"""A family of tiny vision-language models, solved for and not trained, and the questions that they are asked."""
