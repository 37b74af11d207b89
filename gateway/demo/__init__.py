"""`wasl demo`: the main job from nothing, with payers and an institution that are programs."""
