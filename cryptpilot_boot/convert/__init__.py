"""Images: an ordinary one goes in, and one with its root in a volume comes out.

look (what there is) -> plan (what there will be; all refusals) -> build (copy, mend, check).
"""
