"""From scheduled loops to loops that a compiler takes: passes of our own among TVM's."""
