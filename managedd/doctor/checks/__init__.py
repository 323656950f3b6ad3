"""The checks: each looks at one thing and has it judged."""
