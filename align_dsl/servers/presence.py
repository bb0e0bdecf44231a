"""Is the model there, which build of it, and how much does it read? Asks no question of the model.

What is not there is answered with the nearest that is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from align_dsl.engine.ollama import loaded_window, own_window
from align_dsl.errors import nearest, visible
from align_dsl.servers.line import Line, Trouble, whole
from align_dsl.servers.report import Finding, fatal, ok, unknown, warning
from align_dsl.servers.server import Offer, Server, offers
from align_dsl.servers.subject import Subject

SMALL = 4096  # tokens; exemplars and a long scenario do not fit into less


@dataclass(slots=True)
class Presence:
    findings: list[Finding] = field(default_factory=list)
    digest: str = ""
    context: int | None = None

    def add(self, finding: Finding) -> None:
        self.findings.append(finding)


async def presence(line: Line, subject: Subject, server: Server) -> Presence:
    found = Presence()
    if wrong := _misdirected(subject, server):
        found.add(wrong)
        if wrong.level == "fatal":
            return found
    if server.problem:
        found.add(unknown("model", f"its list of models cannot be read: {server.problem}"))
        return found
    try:
        offered = await offers(line, server, subject.key)
    except Trouble as trouble:
        found.add(unknown("model", str(trouble)))
        return found
    one = _listed(subject.name, offered)
    if subject.dialect == "gguf" and offered:
        one = offered[0]
    if one is None:
        found.add(_absent(subject, server, offered))
        if found.findings[-1].level == "fatal":
            return found
        one = offered[0] if server.kind == "llama.cpp" else _nameless(subject, server)
    else:
        found.add(ok("model", f"present{_described(one)}", offers=[o.name for o in offered]))
    if server.kind == "Ollama":
        await _shown_by_ollama(line, subject, server, one, found)
    else:
        found.context = one.context
        _tell_window(found, server)
    found.digest = one.digest
    if one.digest:
        found.add(ok("digest", visible(one.digest.removeprefix("sha256:")[:12])))
    elif subject.dialect != "gguf":
        said = f"{server.kind} tells none: a changed model under the same name goes unnoticed"
        found.add(unknown("digest", said))
    return found


def _misdirected(subject: Subject, server: Server) -> Finding | None:
    """The right server, asked in the wrong dialect or at the wrong path."""
    plain, with_v1 = server.root, f"{server.root}/v1"
    if server.kind == "Ollama" and subject.dialect == "openai":
        advice = f"write `ollama_chat/{subject.name}` with the endpoint {plain}: over /v1 no"
        advice += " context can be asked for, and OLLAMA_CONTEXT_LENGTH alone decides"
        if subject.endpoint != with_v1:
            return fatal("endpoint", f"Ollama's OpenAI dialect is at {with_v1}", advice)
        return warning("endpoint", "Ollama is asked through its OpenAI dialect", advice)
    if subject.dialect == "ollama" and server.kind != "Ollama":
        provider = "hosted_vllm" if server.kind == "vLLM" else "openai"
        advice = f"write `{provider}/{subject.name}` with `endpoint: {with_v1}`"
        return fatal("endpoint", f"this is no Ollama but {server.kind}", advice)
    if subject.dialect == "ollama" and subject.endpoint != plain:
        return fatal("endpoint", "Ollama's own dialect is not under /v1", f"endpoint: {plain}")
    lenient = server.kind == "llama.cpp"  # has its routes with /v1 and without
    if subject.dialect == "openai" and not lenient and subject.endpoint != server.base:
        return fatal("endpoint", "the path is wrong", f"write `endpoint: {server.base}`")
    return None


def _listed(name: str, offered: tuple[Offer, ...]) -> Offer | None:
    for one in offered:
        if one.name == name or (one.server == "Ollama" and one.name == f"{name}:latest"):
            return one
    return None


def _absent(subject: Subject, server: Server, offered: tuple[Offer, ...]) -> Finding:
    names = [o.name for o in offered]
    said = f"no model named `{visible(subject.name)}` here"
    hint = visible(nearest(subject.name, names)) if names else "it offers no model at all"
    if server.kind == "Ollama":
        hint += f"; to fetch it: align-dsl models --pull {visible(subject.name)}"
    if server.kind == "llama.cpp" and names:
        said = f"no model named `{visible(subject.name)}`; it answers all names with `{names[0]}`"
        return warning("model", said, "write the name that the server says", offers=names)
    if server.kind in {"transformers serve", "OpenAI-compatible"}:  # some load what they are asked
        return warning("model", f"{said}, by its own list", hint, offers=names)
    return fatal("model", said, hint, offers=names)


def _nameless(subject: Subject, server: Server) -> Offer:
    return Offer(subject.name, server.kind, subject.endpoint, subject.model.address)


def _described(one: Offer) -> str:
    parts = [one.about] if one.about else []
    if one.size:
        parts.append(f"{one.size / 1e9:.1f} GB" if one.size >= 1e8 else f"{one.size / 1e6:.1f} MB")
    return f" ({visible(', '.join(parts))})" if parts else ""


def _tell_window(found: Presence, server: Server) -> None:
    if found.context is None:
        found.add(unknown("context", f"{server.kind} does not tell its context window"))
        return
    said = f"{found.context:,} tokens"
    slots = whole(server.props.get("total_slots"))
    if slots:
        said += f" for each of {slots} requests at once"
    if found.context < SMALL:
        flag = {"vLLM": "--max-model-len", "llama.cpp": "--ctx-size"}.get(server.kind, "")
        advice = f"raise `{flag}` for programs with exemplars" if flag else ""
        found.add(warning("context", said, advice, tokens=found.context))
    else:
        found.add(ok("context", said, tokens=found.context))


async def _shown_by_ollama(
    line: Line, subject: Subject, server: Server, one: Offer, found: Presence
) -> None:
    """The model's own context; align-dsl asks for as much of it as a prompt needs, where it can."""
    try:
        said = (
            await line.post(f"{server.root}/api/show", {"model": one.name}, line.look)
        ).mapping()
        running = (await line.get(f"{server.root}/api/ps")).mapping()
    except Trouble as trouble:
        found.add(unknown("context", f"could not be told: {trouble}"))
        return
    capabilities = said.get("capabilities")
    if isinstance(capabilities, list) and capabilities and "completion" not in capabilities:
        kinds = visible(", ".join(map(str, capabilities)))
        found.add(fatal("kind", f"this model cannot answer questions, it is for {kinds}"))
    own = own_window(said)
    if own is None:
        found.add(unknown("context", "Ollama does not tell the model's context window"))
        return
    found.context = own
    loaded = loaded_window(running, one.name)
    text = f"{own:,} tokens"
    if subject.dialect == "ollama":
        text += "; align-dsl asks for as much of it as each prompt needs"
    else:
        text += " of its own; over /v1 OLLAMA_CONTEXT_LENGTH decides how many of them"
    text += f"; loaded with {loaded:,}" if loaded else ""
    has = loaded if loaded and subject.dialect != "ollama" else own
    small = "use a model with a longer one for programs with exemplars"
    if has < own and has < SMALL:
        small = "raise OLLAMA_CONTEXT_LENGTH for programs with exemplars"
    if has < SMALL:
        found.add(warning("context", text, small, tokens=own))
    else:
        found.add(ok("context", text, tokens=own))
