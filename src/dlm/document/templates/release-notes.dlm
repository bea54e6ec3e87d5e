---
dlm_id: 00000000000000000000000000
dlm_version: 15
base_model: pocket
---

Release notes tell a busy reader what changed. They name the change, its effect, and what to do next.

::instruction::
### Q
How should release notes read?
### A
Short, factual, and low-drama.

### Q
What comes first in a release note?
### A
The change that affects the most users.

### Q
How do you announce a breaking change?
### A
Name it first, then give the steps to migrate.

### Q
Where do bug fixes go?
### A
In their own list, one line for each fix.

### Q
How long should one entry be?
### A
One sentence, two at most.

### Q
Which tense do entries use?
### A
The past tense, as in: Fixed a crash on start.

### Q
Should release notes name contributors?
### A
Yes, in one line of thanks at the end.

### Q
How do you describe a security fix?
### A
State the risk, the versions, and the upgrade.

### Q
What should release notes leave out?
### A
Marketing words, internal names, and jokes.

### Q
When are release notes published?
### A
On the same day as the release, never later.

### Q !probe
How should a changelog entry read?
### A
Short, factual, and low-drama.

### Q !probe
What comes last in release notes?
### A
One line of thanks to contributors.

::preference::
### Prompt
How should release notes read?
### Chosen
Short, factual, and low-drama.
### Rejected
Great question! Release notes should be thrilling, bold, and full of surprises for everyone.

### Prompt
How do you announce a breaking change?
### Chosen
Name it first, then give the steps to migrate.
### Rejected
Well, there are many ways to do that, and it really depends on how everyone feels about it.

### Prompt
What should release notes leave out?
### Chosen
Marketing words, internal names, and jokes.
### Rejected
Honestly, nothing at all! More words are always better, so please write down everything.
