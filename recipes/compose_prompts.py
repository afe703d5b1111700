"""Compose prompts.txt: what teachers paint for students to learn from.

    python recipes/compose_prompts.py

A prompt is a kind of picture with a word from each of its lists. The lists are of this project, so that
the prompts may be used for anything. Other prompts of yours serve as well: the more different, the
better.
"""

from __future__ import annotations

import random
from pathlib import Path
from string import Formatter

COUNT = 1280
TARGET = Path(__file__).with_name("prompts.txt")

WORDS: dict[str, str] = {
    "person": """an old fisherman|a young violinist|a baker|a glassblower|two sisters|a mountain guide|a
        botanist|a child with freckles|a chess player|a watchmaker|a dancer|a cyclist|a beekeeper|a welder|
        a librarian|three friends|an astronomer|a potter|a market trader|a boxer|a gardener|a train driver|
        a tailor|a surfer|a grandmother|a firefighter|a street musician|a carpenter|a nurse|a falconer""",
    "wearing": """in a wool coat|in a yellow raincoat|with round glasses|in work clothes|with a red scarf|
        in a linen shirt|with a wide straw hat|in a leather apron|with braided hair|in a patterned dress|
        with a silver beard|in a knitted sweater|with paint on the hands|in a dark suit""",
    "doing": """reading a letter|laughing|looking out of a window|tying a knot|pouring tea|holding a
        lantern|writing in a notebook|peeling an orange|repairing a clock|feeding pigeons|waiting for a
        train|folding paper|playing the accordion|warming both hands at a fire|sharpening a pencil|
        carrying a basket of apples|resting on a bench|drawing a map""",
    "animal": """a red fox|a heron|an octopus|a barn owl|a tabby cat|a wild boar|a chameleon|a snow leopard|
        a flock of starlings|a highland cow|a kingfisher|a sleeping dog|a beetle|a humpback whale|two
        horses|a hedgehog|a raven|a lynx|a tree frog|a school of silver fish|a dragonfly|a grey wolf|
        a tortoise|an elephant|a peacock|a squirrel|a moth|a pack of huskies""",
    "place": """a harbour|a narrow alley|a terraced vineyard|a salt flat|a birch forest|a canyon|a glacier|
        a rice field|a railway viaduct|an abandoned greenhouse|a fjord|a mangrove swamp|a lighthouse on a
        cliff|a desert village|a monastery courtyard|a waterfall|a suspension bridge|a lavender field|an
        orchard|a volcanic beach|a city square|a peat bog|a river delta|an alpine meadow|a shipyard|a
        bamboo grove|a quarry|a canal with houseboats|a cobbled street|a tidal flat""",
    "room": """a kitchen|a watchmaker's workshop|a reading room|a greenhouse|a recording studio|an attic|
        a railway carriage|a laboratory|a bakery|a bathhouse|a chapel|a bookshop|a hotel lobby|a weaving
        mill|a ship's cabin|a classroom|a loft with brick walls|a planetarium|a pantry|a dance hall""",
    "thing": """a brass telescope|a bowl of figs|a typewriter|a porcelain teapot|a pair of worn boots|a
        stack of letters|a mechanical bird|a loaf of sourdough|a violin|a jar of honey|a rusted padlock|a
        paper boat|a glass of water|a chessboard|a bicycle|a lantern|a bunch of keys|a pomegranate cut
        open|a pocket watch|a wooden mask|a cactus in a pot|a compass|a folded map|a seashell|a candle|
        a plate of oysters|a bouquet of dried flowers|a ceramic vase|an old radio|a coil of rope""",
    "material": """oxidised copper|wet slate|brushed steel|cracked leather|moss|birch bark|hammered
        brass|frosted glass|rough linen|polished marble|rusted iron|sea foam|lichen on granite|knitted
        wool|peeling paint|weathered oak|sand ripples|tree rings|snow crystals|mother of pearl|basalt
        columns|terracotta|velvet|salt crystals""",
    "light": """at dawn|in morning fog|at noon|in the blue hour|by candlelight|under storm clouds|in
        low winter sun|at night in the rain|in dappled shade|against the light|under neon signs|in soft
        window light|by moonlight|in golden evening light|on an overcast day|in heavy snow|after the
        rain|with long shadows|under the northern lights|lit by a single lamp""",
    "view": """a close-up|a wide view|seen from above|seen from below|through a doorway|reflected in
        water|from across the street|in the distance|an aerial view|a macro photograph|in profile|
        framed by branches|with shallow depth of field|in deep focus|a long exposure|a fisheye view""",
    "style": """an oil painting|a watercolour|a woodcut|a charcoal drawing|a photograph on film|an
        isometric illustration|a linocut in two colours|a pastel drawing|a fresco|a pencil sketch|a
        gouache poster|a stained glass window|a risograph print|an ink wash painting|a paper collage|
        a botanical plate|an embroidered picture|a clay model|a low polygon rendering|a mosaic|
        a pixel art scene|a technical drawing|a children's book illustration|a tapestry""",
    "colours": """in ochre and teal|in muted greys|in warm reds|in pale blues|in black and white|in earth
        colours|in bright primary colours|in violet and gold|in greens|in sepia""",
    "word": """OPEN|BREAD|NORTH|STAY CURIOUS|PLATFORM 9|FRESH FISH|NO ENTRY|CINEMA|HOTEL AURORA|TEA|
        LOST AND FOUND|SUMMER SALE|HARBOUR 3|PLEASE KNOCK|RECORDS|SLOW DOWN|GALLERY|COFFEE""",
    "written": """a neon sign that reads "{word}" above a door|a chalkboard with the word "{word}"|a
        book cover with the title "{word}"|a hand-painted sign that reads "{word}"|a poster with the
        word "{word}" in large letters|a wooden board with "{word}" carved into it""",
    "weather": """in a gale|in drizzle|in still air|in a heat haze|with hail on the ground|in drifting
        mist|under a rainbow|in a sandstorm|in the first snow|in a thunderstorm""",
    "count": "two|three|four|five|seven",
    "things": """red umbrellas|wooden chairs|paper lanterns|green bottles|sailing boats|lemons|hot air
        balloons|clay pots|white horses|street lamps|blue doors|wicker baskets""",
    "arranged": """in a row|in a circle|stacked on each other|scattered on the grass|on a long table|
        hanging from a wire|floating on a lake|in a shop window""",
}

KINDS = [
    "{person} {wearing}, {doing}, {light}",
    "{view} of {person} {wearing} in {room}",
    "{person}, {doing} in {room}, {style}",
    "{animal} in {place}, {light}",
    "{view} of {animal}, {weather}",
    "{animal}, {style} {colours}",
    "{place} {light}, {view}",
    "{place} {weather}, {style}",
    "{view} of {place} {light}, {colours}",
    "{room} {light}, {thing} on the table",
    "{room}, {style} {colours}",
    "{thing} on {material}, {light}",
    "{thing} and {thing2}, a still life, {style}",
    "the texture of {material}, {view}, {light}",
    "{written}, {light}",
    "{written} in {place}",
    "{count} {things} {arranged}, {light}",
    "{count} {things} {arranged}, {style}",
    "{person} and {animal} in {place}, {light}, {colours}",
    "a map of an island with {place} and {place2}, {style}",
]


def lists() -> dict[str, list[str]]:
    """Return the words of each list."""
    return {name: [" ".join(w.split()) for w in text.split("|")] for name, text in WORDS.items()}


def compose(kind: str, words: dict[str, list[str]], draw: random.Random) -> str:
    """Fill one kind of picture with words."""
    taken: dict[str, str] = {}
    for _, name, _, _ in Formatter().parse(kind):
        if name is not None:
            choices = [w for w in words[name.rstrip("2")] if w not in taken.values()]
            taken[name] = draw.choice(choices)
    text = kind.format(**taken)
    return text.replace("{word}", draw.choice(words["word"]))


def compose_all(count: int = COUNT, seed: int = 0) -> list[str]:
    """Compose different prompts, of each kind as many as of any other."""
    draw, words = random.Random(seed), lists()
    found: dict[str, None] = {}
    while len(found) < count:
        kind = KINDS[len(found) % len(KINDS)]
        found.setdefault(compose(kind, words, draw))
    return list(found)


if __name__ == "__main__":
    TARGET.write_text("\n".join(compose_all()) + "\n", encoding="utf-8")
