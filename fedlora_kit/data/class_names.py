"""Class names: of the image tasks in the order of the Hub's label integers; categories of instructions."""

from __future__ import annotations

from fedlora_kit.data.builtin.grammar import DEEDS, GOODS


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: a name on the Hub -> the name meant
MISSPELT = {"cra": "crab"}

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

#: LexGLUE's data card lists them in this order, which is alphabetical
LEDGAR = tuple(
    name.replace("_", " ")
    for name in _names(
        """
        Adjustments Agreements Amendments Anti-Corruption_Laws Applicable_Laws Approvals Arbitration
        Assignments Assigns Authority Authorizations Base_Salary Benefits Binding_Effects Books Brokers
        Capitalization Change_In_Control Closings Compliance_With_Laws Confidentiality
        Consent_To_Jurisdiction Consents Construction Cooperation Costs Counterparts Death Defined_Terms
        Definitions Disability Disclosures Duties Effective_Dates Effectiveness Employment Enforceability
        Enforcements Entire_Agreements Erisa Existence Expenses Fees Financial_Statements Forfeitures
        Further_Assurances General Governing_Laws Headings Indemnifications Indemnity Insurances Integration
        Intellectual_Property Interests Interpretations Jurisdictions Liens Litigations Miscellaneous
        Modifications No_Conflicts No_Defaults No_Waivers Non-Disparagement Notices Organizations
        Participations Payments Positions Powers Publicity Qualifications Records Releases Remedies
        Representations Sales Sanctions Severability Solvency Specific_Performance Submission_To_Jurisdiction
        Subsidiaries Successors Survival Tax_Withholdings Taxes Terminations Terms Titles
        Transactions_With_Affiliates Use_Of_Proceeds Vacations Venues Vesting Waiver_Of_Jury_Trials Waivers
        Warranties Withholdings
        """
    )
)

PACS = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")

#: the data card's list could be read in part only (0 to 49, in alphabetical order), so these are numbers of
#: their places in the alphabet
DOMAINNET121 = tuple(f"class {number:03d}" for number in range(121))

#: a deed and a thing, each in the first of its words
TOPICS = tuple(f"{deed[0]} {good[0]}" for deed in DEEDS for good in GOODS)

#: the kinds of the built-in instructions (`data.builtin.instructions`)
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
