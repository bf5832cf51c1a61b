"""Texts that meet, fail or leave unclear a requirement of each type."""

from ste_jax.pairs.predicate import Values

TEN = "one two three four five six seven eight nine ten "
CODE = "```python\nprint(sum([1, 2]))\n```"
CHINESE = "今天天气很好，我们去公园散步。你想一起去吗？"
# For each type: values, texts that meet the requirement, texts that fail it, unclear ones.
Cases = tuple[Values, list[str], list[str], list[str]]
CASES: dict[str, Cases] = {
    "contains_word": (
        ("Bread",),
        ["We bake bread daily.", "BREAD!", "Fresh «bread»,\r\nwarm."],
        ["We bake cakes.", "Brown rice."],
        ["Breadcrumbs are dry.", "sweet-bread", "my_bread = 1", CHINESE, "Brea\u0301d is dear."],
    ),
    "lacks_word": (
        ("curves",),
        ["Straight lines only.", "A cup of tea."],
        ["Two curves meet.", "Curves."],
        ["One curve.", "It is curved.", CHINESE],
    ),
    "contains_phrase": (
        ("machine learning",),
        ["I like Machine Learning.", "It is machine\u00a0learning, they say."],
        ["A machine that works.", "Learning by heart."],
        ["machine-learning", "Learning about a machine.", "machine\nlearning", "machines learning"],
    ),
    "first_word": (
        ("Well",),
        ["Well, yes.", "  well\nI think so.", "\ufeffWell"],
        ["Yes, well.", "1. Yes"],
        ['"Well," he said.', "**Well**", "- Well", "Wells are deep."],
    ),
    "last_word": (
        ("home",),
        ["We went home.", "go home", "Sweet home!  \r\n"],
        ["At home we sleep.", "We went away."],
        ['She said "go home"', "Homes", "our holiday home (here)", "home..."],
    ),
    "sentence_starts_with": (
        ("Today",),
        ["It is cold. Today we stay in.", "Today, I rest a while."],
        ["We stay in today.", "Tomorrow we leave."],
        ["It is cold.\nToday: rain", 'He said: "Today is fine."', "Today", "We met Today Smith."],
    ),
    "contains_both_words": (
        ("salt", "pepper"),
        ["Salt and pepper.", "First pepper, then salt."],
        ["Salt only.", "Neither."],
        ["Salty pepper.", "salt and peppery sauce"],
    ),
    "contains_word_twice": (
        ("river",),
        ["A river meets a river.", "River! River? River."],
        ["One river.", "No water."],
        ["One river of many rivers.", "riverbed and river"],
    ),
    "word_order": (
        ("wash", "iron"),
        ["Wash it and iron it.", "wash, wash, iron, wash"],
        ["Iron it and wash it.", "Wash it.", "Iron it."],
        ["Iron, wash, iron.", "Washing and iron.", "It was so. Iron it, wash it."],
    ),
    "first_letter": (
        ("T",),
        ["Two cats.", "to be"],
        ["A tree.", "Éclair, then two."],
        ['"Two"', "1. Two", "**A**", "7 trees"],
    ),
    "has_comma": (
        (),
        ["Yes, please.", "a, b"],
        ["No.", "One; two."],
        ["1,000 men", CHINESE, f"{CODE}, done"],
    ),
    "no_comma": ((), ["Yes please.", "One; two."], ["Yes, please.", "A,b"], ["1,000", CHINESE, CODE]),
    "has_colon": ((), ["Note: it rains.", "As follows:\n- x"], ["No.", "a; b"], ["12:30", "http://x.org"]),
    "no_colon": ((), ["It rains.", "a; b"], ["Note: it rains.", "Like this:"], ["12:30", "a：b"]),
    "has_question_mark": (
        (),
        ["Why?", "Why? Because."],
        ["Because.", "Why!"],
        ["为什么？", "x = a(b) ? 1 : 2;"],
    ),
    "no_question_mark": ((), ["Because.", "Why not!"], ["Why?", "Who? Me."], ["为什么？", "¿Que"]),
    "has_exclamation_mark": ((), ["Go!", "Oh! No."], ["Go.", "Why?"], ["去！", "if (a != b) {"]),
    "no_exclamation_mark": ((), ["Go.", "Why?"], ["Go!", "Oh! No."], ["去！", "¡Hola"]),
    "ends_with_question_mark": (
        (),
        ["Is it?", "Well, is it? \n"],
        ["It is.", "Is it? Yes."],
        ['He said "is it?"', "Is it?!", "是吗？", "Is it??"],
    ),
    "ends_with_exclamation_mark": (
        (),
        ["It is!", "Yes. It is!\r\n"],
        ["It is.", "Yes! It is"],
        ['"It is!"', "It is!!", "It is!?"],
    ),
    "ends_with_full_stop": (
        (),
        ["It is.", "Yes! It is. "],
        ["It is", "It is. Or not?", "It is:"],
        ["It is...", "(It is.)", "是的。", "It is…"],
    ),
    "has_digits": (
        (),
        ["I have 7 cats.", "It costs 3.50."],
        ["Seven cats.", "None"],
        ["1. Cats", "GPT4", "½ cup"],
    ),
    "no_digits": (
        (),
        ["Seven cats.", "None"],
        ["I have 7 cats.", "GPT4"],
        ["1. Cats\n2. Dogs", "x² is", "½ cup"],
    ),
    "has_quotation": (
        (),
        ['She said "yes" twice.', "The word “cat” is short."],
        ["She said yes.", "It's here."],
        ["The 'cat' sat.", 'It is 5" long.', 'An open " mark', "the dogs' tails"],
    ),
    "no_quotation": (
        (),
        ["She said yes.", "It's here."],
        ['She said "yes".', "A “cat”."],
        ["The 'cat' sat.", "the dogs' tails", "`x`"],
    ),
    "has_parentheses": (
        (),
        ["A cat (grey) sat.", "He came (at last)."],
        ["A cat sat.", "[grey]"],
        ["1) cats", "call f(x)", "smile :)", "An open (bracket"],
    ),
    "no_parentheses": (
        (),
        ["A cat sat.", "[grey]"],
        ["A cat (grey).", "(Yes)"],
        ["1) cats", "f(xy)", "（是）"],
    ),
    "at_least_words": (
        (20,),
        [TEN * 3, TEN * 2 + "a b c d"],
        [TEN, "Short."],
        [TEN * 2, f"{TEN * 3}\n{CODE}", CHINESE * 9],
    ),
    "at_most_words": (
        (20,),
        [TEN, "Short."],
        [TEN * 3, TEN * 2 + "a b c d e"],
        [TEN * 2, "state-of-the-art " * 8, CODE, CHINESE],
    ),
    "at_least_sentences": (
        (2,),
        ["The cat sat down. It was very tired.", "Is it so big? It is so big! We are here."],
        ["The cat sat down.", "The cat sat"],
        [
            "The cat sat down\nIt was tired",
            "I saw Dr. Lee today. And",
            "He left at 5 p.m. Then it rained.",
            "One. Two.",
        ],
    ),
    "at_most_sentences": (
        (2,),
        ["The cat sat down.", "The cat sat down. It was tired."],
        [
            "We are all here. It is now late. They will go home.",
            "I see it. You see it? We see it! They see it.",
        ],
        ["1. Cats 2. Dogs 3. Fish. Birds", "Wait... no... yes", "A\nB\nC", CODE],
    ),
    "one_sentence": (
        (),
        ["The cat sat on the mat.", "Who is there at the door?"],
        ["The cat sat down. It was very tired.", "We are all here! It is now late."],
        ["The cat sat", "Yes.", "The cat\nsat on the mat.", "He met Dr. Lee there.", "so it goes on."],
    ),
    "one_paragraph": (
        (),
        ["The cat sat down. It was tired.", "One line"],
        ["The cat sat down.\n\nIt was very tired.", "We are all here.\r\n\r\nIt is now late.\r\n"],
        ["A title\n\nThe cat sat down.", "Roses are red,\nviolets are blue.", f"It is so.\n\n{CODE}"],
    ),
    "several_paragraphs": (
        (),
        ["The cat sat down.\n\nIt was very tired.", "We are all here.\n \nIt is now late.\n\nBye."],
        ["The cat sat down. It was tired.", "One line"],
        [
            "A title\n\nThe cat sat down.",
            "Roses are red,\nviolets are blue.",
            "- It is so big.\n\n- It is so small.",
        ],
    ),
    "bulleted_list": (
        (),
        ["Take:\n- salt\n- oil", "* one\n* two\n* three", "• a\r\n• b"],
        ["Take salt and oil.", "One line - with a dash"],
        ["1. salt\n2. oil", "- only one", "– Hello.\n– Hi.", "# Title\nText"],
    ),
    "numbered_list": (
        (),
        ["1. salt\n2. oil", "Do:\n1) wash\n2) dry\n3) iron"],
        ["Take salt and oil.", "In 1990 it rained."],
        ["- salt\n- oil", "1. only one", "3. a\n7. b", "First 1. wash 2. dry"],
    ),
    "no_list": (
        (),
        ["Take salt and oil.", "First wash, second dry."],
        ["- salt\n- oil", "1. salt\n2. oil"],
        ["1. only one", "Do this: 1. wash 2. dry", "(a) wash, (b) dry", "→ go", CODE],
    ),
    "bold": (
        (),
        ["This is **big**.", "**Note:** it rains"],
        ["This is big.", "2 * 3"],
        ["__big__", "2**3", "<b>big</b>", "This is **big"],
    ),
    "code_block": (
        (),
        [CODE, "Run this:\n\n```\nls -l\n```\nDone."],
        ["Run it.", "It has no code."],
        ["Run `ls`.", "Here it is:\n```", "def f(x):\n    return x", "~~~\nls\n~~~"],
    ),
    "no_code_block": (
        (),
        ["Run it.", "Words only."],
        [CODE, "Run:\n```sh\nls"],
        ["Run `ls`.", "x = 3", "int main() {\n"],
    ),
    "heading": (
        (),
        ["# Title\nText", "Text\n\n## Part two\nMore"],
        ["Title\nText", "**Title**"],
        ["#hashtag", "C# is fine", f"{CODE}\n# comment"],
    ),
    "long_word": (
        (10,),
        ["A misunderstanding.", "An extraordinary day."],
        ["A short day.", "It is what it is."],
        ["A frightened one", "self-made-man", CODE, CHINESE, "see http://example.org/abcdefghijkl"],
    ),
    "short_words": (
        (10,),
        ["A short day.", "It is what it is."],
        ["A misunderstanding.", "An extraordinary day."],
        ["A frightened man", "a well-to-do-man", CODE],
    ),
    "lower_case": (
        (),
        ["all of this is small.", "привет, как дела сегодня?"],
        ["This is Not small.", "ALL OF THIS IS BIG"],
        ["This has one capital.", "short", CHINESE, "x = foo(barbazqux)"],
    ),
    "capital_word": (
        (),
        ["Send it to NASA today.", "STOP right there."],
        ["Send it to them.", "I am A Man."],
        ["The USA's plan", "iPHONE", "U.S. law", "World War II", "GPT-4", "HTML5"],
    ),
    "language": (
        ("English",),
        [
            "The cat is on the table and it is not for you.",
            "In the middle of the night, I can hear the sound of rain.",
        ],
        [
            CHINESE,
            "Сегодня хорошая погода, и мы идём гулять в парк.",
            "El gato está en la mesa y es de la casa de una mujer que vive con los niños.",
        ],
        [
            "Cats. Dogs. Birds everywhere tonight, friends, run away!",
            "OK",
            "The 猫 is on the table and it is good.",
        ],
    ),
    "says_you": (
        (),
        ["You can do it.", "Can you?"],
        ["It can be done.", "Youth is short."],
        ["Your turn.", "You're in."],
    ),
    "no_you": (
        (),
        ["It can be done.", "Youth is short."],
        ["You can.", "Do you?"],
        ["Your turn.", "u r late", "Y'all"],
    ),
    "says_i": (
        (),
        ["I think so.", "Give me my hat."],
        ["They think so.", "Army men."],
        ["I'm in.", "World War I", "i.e. so"],
    ),
    "no_i": (
        (),
        ["They think so.", "Army men."],
        ["I have it.", "It is my hat."],
        ["I'm in.", "World War I", "Mine."],
    ),
    "has_contraction": (
        (),
        ["It's late.", "I don’t know."],
        ["It is late.", "I do not know."],
        ["The dog's tail", "I cannot go", "dont", "rock 'n' roll isn`t"],
    ),
    "no_contraction": (
        (),
        ["It is late.", "I do not know."],
        ["It's late.", "They’re here."],
        ["The dog's tail", "I cannot go", "gonna"],
    ),
    "mentions_year": (
        (),
        ["It began in 1995.", "On March 3, 2021, it rained.", "Since 1850, it grew."],
        ["It began long ago.", "In spring."],
        ["It cost 1995 dollars", "in 1995 houses", "the 1990s", "last year", "nineteen eighty-four"],
    ),
    "has_emoji": ((), ["Great 😀", "🚀 Go!"], ["Great.", "Go!"], ["Great :)", "I ♥ it", "5 → 6", "©"]),
}
