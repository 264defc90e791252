"""Prompts of chat, code and Chinese, none a beginning of another."""

from __future__ import annotations

CHAT = [
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain why the sky is blue to a child of six.",
    "Give me three tips for better sleep.",
    "Translate 'good morning' into Spanish, German and Italian.",
    "Who wrote Pride and Prejudice, and when?",
    "List the planets of the solar system in order.",
    "My train is late. Write a polite message to my boss.",
]
CODE = [
    "def fibonacci(n):\n",
    "import json\n\ndef read_config(path):\n    ",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "SELECT name, COUNT(*) FROM orders WHERE ",
    "#include <stdio.h>\n\nint main(void) {\n",
    "<html>\n<head><title>Hello</title></head>\n<body>\n",
    "for i in range(10):\n    for j in range(10):\n        ",
]
CHINESE = [
    "今天天气很好，我们去",
    "北京是中国的首都，",
    "人工智能的未来是",
    "请用中文介绍一下你自己。",
    "春眠不觉晓，",
    "从前有一座山，山上有一座庙，",
    "学习编程最好的方法是",
]
