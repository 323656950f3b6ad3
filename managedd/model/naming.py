"""Names for runs that nobody named: an adjective and an animal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

ADJECTIVES: tuple[str, ...] = tuple(
    """
    able agile airy alert amber ample ancient apt arctic ardent artful autumn awake azure balmy beaming blithe bold bouncy
    brave breezy bright brisk bronze calm candid careful caring cheerful chestnut chipper civil classic clean clear clever
    coastal cobalt comfy copper coral cosmic cosy courtly crafty creamy crimson crisp curious dainty dapper daring dashing
    deft dewy diligent dreamy eager early earnest easy ebony elegant emerald epic fabled fair famous fancy feathery festive
    fine fleet floral fluffy fond frank free fresh friendly frosty gallant gentle gilded glad gleaming glossy golden graceful
    grand grateful happy hardy hazel hearty helpful honest hopeful humble indigo ivory jade jaunty jolly jovial joyful keen
    kind lavender leafy level light lilac lively lofty loyal lucid lucky lunar lush maple marble mellow merry mighty mild
    mint misty modest mossy neat nimble noble novel olive opal orderly patient peaceful pearly pensive placid playful polite
    proud prudent quick quiet radiant rapid ready regal robust rosy royal ruby rustic sandy sapphire serene shiny silent
    silver sleek smart snowy solar spirited spry stately steady stellar sterling sturdy subtle sunny swift tidy topaz tranquil
    trusty upbeat valiant velvet vernal vivid warm whimsical winged winter wise witty woven zesty
    """.split(),
)
ANIMALS: tuple[str, ...] = tuple(
    """
    aardvark addax albatross alpaca anchovy angelfish antelope armadillo avocet axolotl badger bandicoot barbet beaver beetle
    beluga bilby bison bittern blackbird bluebird bobcat bongo bonobo bream budgie buffalo bunting bushbaby butterfly buzzard
    caiman camel canary capybara cardinal caribou carp cassowary catfish chameleon chamois cheetah chickadee chinchilla
    chipmunk cicada civet clam clownfish cockatoo condor coot cormorant cougar coyote crab crane cricket cuckoo curlew
    cuttlefish dachshund damselfly deer dingo dipper dolphin donkey dormouse dove dragonfly duck dugong dunlin eagle echidna
    egret eider eland elk emu ermine falcon fawn ferret finch firefly flamingo flounder fox gannet gazelle gecko gerbil
    gibbon giraffe gnu goldfinch goose gopher grebe greyhound grouper grouse guppy hamster hare harrier hawk hedgehog heron
    herring hoopoe hornbill hummingbird ibex ibis iguana impala jackdaw jaguar jay jerboa kakapo kangaroo kestrel kingfisher
    kinkajou kite kiwi koala koi kookaburra kudu ladybird lapwing lark lemming lemur leopard linnet lion llama lobster loon
    lorikeet lynx macaw mackerel magpie mallard manatee mandrill manta margay marlin marmoset marmot marten meerkat merganser
    minnow mole mongoose moose moth mouse muntjac narwhal newt nightingale numbat nuthatch ocelot octopus okapi oriole oryx
    osprey ostrich otter owl oyster panda pangolin parakeet parrot partridge peacock pelican penguin petrel pheasant pika
    pipit platypus plover polecat pony porcupine porpoise possum prawn puffin quail quokka quoll rabbit raccoon raven redpoll
    redstart reindeer robin rook salamander salmon sandpiper sardine seahorse seal serval shearwater shrew skylark sparrow
    spoonbill squirrel starfish starling stoat stork sturgeon swallow swan swift tamarin tanager tapir tarsier tern thrush
    tiger toucan trout tuna turbot turtle viscacha vole wagtail wallaby walrus warbler waxwing weasel whale wigeon wildcat
    wolverine wombat woodpecker wren yak zebra zebu
    """.split(),
)


def run_name(random: Random) -> str:
    """A name such as `quiet-heron`; names repeat, ids do not."""
    return f"{random.choice(ADJECTIVES)}-{random.choice(ANIMALS)}"
