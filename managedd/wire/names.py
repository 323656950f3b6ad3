"""Names for runs that came without one: an adjective and an animal."""

from __future__ import annotations

import random

_ADJECTIVES = """
able agile amber ample ancient arctic ardent astute autumn azure balmy bashful blithe bold bouncy brave breezy brief bright brisk bronze
calm candid careful cheerful chestnut civil clever cobalt cool copper coral cosy crimson crisp curious daring dapper deft dewy eager early
earnest easy elegant emerald fabulous fair fancy fast fearless festive fine fleet fluent fond frank free fresh frosty gallant gentle giddy
gilded glad golden graceful grand great green hardy hasty hazel hearty honest humble indigo ivory jade jolly jovial keen kind large lavender
lively loyal lucid lucky mellow merry mighty mild misty modest mossy neat nifty nimble noble olive opal orange patient peach placid plucky
polished polite prompt proud purple quick quiet radiant rapid ready regal robust rosy royal ruby russet rustic sage sandy sapphire scarlet
serene shady sharp silent silver sincere sleek smart smooth snowy solid spirited spry stately steady stellar sturdy subtle sunny swift tan
tawny teal tender thrifty tidy tranquil trusty upbeat urban valiant velvet verdant vivid warm watchful whimsical wily winter wise witty young
zealous zesty
""".split()
_ANIMALS = """
albatross alpaca antelope auk badger bat bear beaver bee bison bittern boar bobcat buffalo bullfinch camel capybara caribou cat cheetah
chamois chinchilla clam cobra condor cormorant coyote crab crane cricket crow curlew deer dingo dolphin dormouse dove dragonfly duck eagle
egret eland elk ermine falcon ferret finch firefly flamingo fox frog gannet gazelle gecko gerbil gibbon giraffe gnu goat goose goshawk grouse
gull hare harrier hawk hedgehog heron hornet horse ibex ibis iguana impala jackal jackdaw jaguar jay kestrel kingfisher kiwi koala kudu
lapwing lark lemming lemur leopard lion lizard llama lobster loon lynx macaw magpie mallard manatee marmot marten meerkat mink mole mongoose
moose mouse mule narwhal newt nightingale ocelot octopus okapi opossum orca oriole oryx osprey ostrich otter owl oyster panda panther parrot
partridge pelican penguin petrel pheasant pigeon plover pony porcupine porpoise puffin puma quail quokka rabbit raccoon ram raven reindeer
robin rook salmon sandpiper seahorse seal serval shark sheep shrew skylark sloth snail snipe sparrow squid squirrel starling stoat stork swan
swift tapir teal tern thrush tiger toad tortoise toucan trout tuna turtle viper vole wallaby walrus warbler weasel whale wolf wombat woodcock
woodpecker wren yak zebra
""".split()


def run_name() -> str:
    """A random name such as `brisk-otter`; it need not be the only one of its kind."""
    return f"{random.choice(_ADJECTIVES)}-{random.choice(_ANIMALS)}"
