"""Digital renal phantoms whose truth is known exactly.

levels say how hard a cohort is, patients who is in it; bmode, ceus and ct draw the pictures.
"""
