def draw_all_possible_flows(workflow, filename="workflow_all_flows.html"): raise NotImplementedError
def draw_most_recent_execution(workflow, filename="workflow_recent_execution.html"): raise NotImplementedError
