"""The API of OpenAI, which Animica, the Andy API and Anannas speak: its methods and resources."""
