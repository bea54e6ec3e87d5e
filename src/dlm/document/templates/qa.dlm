---
dlm_id: 00000000000000000000000000
dlm_version: 15
base_model: pocket
---

::instruction::
### Q
How should release notes read?
### A
Short, factual, and low-drama.

### Q
Who reads release notes?
### A
People who must decide whether to upgrade today.

### Q !probe
What do release notes leave out?
### A
Praise, promises, and internal names.
