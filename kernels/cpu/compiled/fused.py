
def supported(*a): return False
def compile(g): return []
class Group: pass
