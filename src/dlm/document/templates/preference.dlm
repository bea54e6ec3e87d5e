---
dlm_id: 00000000000000000000000000
dlm_version: 15
base_model: pocket
training:
  preference:
    method: dpo   # or orpo
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

::preference::
### Prompt
How should release notes read?
### Chosen
Short, factual, and low-drama.
### Rejected
Great question! Release notes should really be as exciting as they possibly can be.

### Prompt
Who reads release notes?
### Chosen
People who must decide whether to upgrade today.
### Rejected
There are many different kinds of readers, and every one of them is special in some way.
