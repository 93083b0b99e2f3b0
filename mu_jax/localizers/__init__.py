"""Where is a fact looked up? Each localizer turns prompts into `Scores`.

    patching      the primitive: a base run whose sites move towards a donor run
    patched_runs  many of one base, through one compiled program
    derivative    of the patched run, with respect to every site
    flow          along the edges of one batch
    metrics       what a patched run is judged by
    residuals     the stream at the subject's and the prompt's last token
    classifier    what a probe fits to it
    tracing, attribution, edges, paths, probes      the localizers

By default each is the clean definition of its method. `CausalTracing.paper()`,
`AttributionPatching.paper()` and `PathPatching(mode="paper")` do as the paper's runs
did (method §4), as far as that is known:

                        clean                           paper
    tracing
      noise             3 sigma of all subject tokens   sqrt(3 sigma) of the row's own
      draws             the same in every run           a fresh one in every run
      metric            each row's own answer           probability of all the batch's
                                                        answers, repeats counted
      attention         the layer's whole output        signed sum of its heads' scores
    attribution
      attention         the layer's output              queries + keys + values + heads:
                                                        a path counts up to four times
      MLP               its output                      input + output
      metric            each row's own answer           mean over the batch's answers
    paths
      metric            float32                         float16
    selectors
      budget (Top)      never exceeded                  reached by whole components, and
                                                        so exceeded by up to one
      Random            all seven matrices              never draws the gate

Not reproduced: the float16 model of path patching, the offset that its Llama 3 runs
subtract, its receiver taken as fixed for a model, and a subject that is not found and
stays uncorrupted (here that is an error).
"""
