"""placeholder"""
def waiting_archive_ids(): return []
def unpack(job_id, worker=""): pass
