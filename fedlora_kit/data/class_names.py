"""Class names: of the image tasks in the order of the Hub's label integers; categories of instructions."""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CIFAR100 = _names(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
    camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
    cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
    oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
    possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """
)

FOOD101 = _names(
    """
    apple_pie baby_back_ribs baklava beef_carpaccio beef_tartare beet_salad beignets bibimbap
    bread_pudding breakfast_burrito bruschetta caesar_salad cannoli caprese_salad carrot_cake
    ceviche cheesecake cheese_plate chicken_curry chicken_quesadilla chicken_wings chocolate_cake
    chocolate_mousse churros clam_chowder club_sandwich crab_cakes creme_brulee croque_madame
    cup_cakes deviled_eggs donuts dumplings edamame eggs_benedict escargots falafel filet_mignon
    fish_and_chips foie_gras french_fries french_onion_soup french_toast fried_calamari fried_rice
    frozen_yogurt garlic_bread gnocchi greek_salad grilled_cheese_sandwich grilled_salmon guacamole
    gyoza hamburger hot_and_sour_soup hot_dog huevos_rancheros hummus ice_cream lasagna
    lobster_bisque lobster_roll_sandwich macaroni_and_cheese macarons miso_soup mussels nachos
    omelette onion_rings oysters pad_thai paella pancakes panna_cotta peking_duck pho pizza
    pork_chop poutine prime_rib pulled_pork_sandwich ramen ravioli red_velvet_cake risotto samosa
    sashimi scallops seaweed_salad shrimp_and_grits spaghetti_bolognese spaghetti_carbonara
    spring_rolls steak strawberry_shortcake sushi tacos takoyaki tiramisu tuna_tartare waffles
    """
)

#: the kinds of the built-in instructions (`data.builtin_instructions`)
INSTRUCTIONS = _names("last_word reverse opposite sort names sentiment fact count")

#: databricks/databricks-dolly-15k, the column "category"
DOLLY = _names(
    """
    brainstorming classification closed_qa creative_writing general_qa information_extraction open_qa
    summarization
    """
)

#: task files of Super-NaturalInstructions that the kit takes, one kind of work each: the files' names without
#: ".json". The default of the task natural_instructions; another choice is a task of its own
#: (`data.natural_instructions.chosen_tasks`).
NATURAL_INSTRUCTIONS = _names(
    """
    task002_quoref_answer_generation task073_commonsenseqa_answer_generation task1572_samsum_summary
    task1687_sentiment140_classification task181_outcome_extraction task363_sst2_polarity_classification
    task591_sciq_answer_generation task875_emotion_classification
    """
)
