"""Forty prompts in free wording, written by hand and used nowhere in training."""

PARAPHRASES: list[tuple[str, str, str | None]] = [
    # scikit-learn's 8x8 digits
    ("Could you make me a small convnet that reads the 8x8 handwritten digits from scikit-learn?", "digits", "cnn"),
    (
        "hey, need a tiny fully connected net for sklearn's load_digits, no more than four thousand weights",
        "digits",
        "mlp",
    ),
    ("I'd like something that recognises handwritten numerals. Keep it under 2,000 parameters.", "digits", None),
    (
        "Handwritten digit recogniser wanted: dense layers only, and it should get at least 96 percent right.",
        "digits",
        "mlp",
    ),
    ("Please generate a netwrok that can tell which numeral somebody wrote by hand", "digits", None),
    (
        "For a classroom demo on the 64-pixel digit images shipped with scikit-learn, build a model with conv layers.",
        "digits",
        "cnn",
    ),
    ("An MLP, as small as you can manage, to classify handwritten digits.", "digits", "mlp"),
    (
        "My pupils scribble numbers from 0 to 9 on paper. Once each one has been shrunk to eight by eight pixels, "
        "I want a network to name it.",
        "digits",
        None,
    ),
    (
        "what's the smallest thing you can give me that still gets 9 out of 10 of the scikit-learn digits right?",
        "digits",
        None,
    ),
    (
        "Build handwritten-digit classifier. Learned filters first, then one output layer. Budget: 3k params.",
        "digits",
        "cnn",
    ),
    (
        "Eight-by-eight grey digits in, one of ten labels out, nothing but plain linear layers with ReLU between them.",
        "digits",
        "mlp",
    ),
    (
        "I am looking for a medium-sized convolutional neural network that sorts handwritten numerals into the ten "
        "classes, ideally with 98% test accuracy or better.",
        "digits",
        "cnn",
    ),
    ("feed-forward network, sklearn digits, < 5000 weights, thanks!", "digits", "mlp"),
    (
        "Would it be possible to get a multilayer perceptron for load_digits? How wide or deep it is doesn't matter.",
        "digits",
        "mlp",
    ),
    ("give me a CNN for hand-written digits", "digits", "cnn"),
    ("The data set is scikit-learn's digits; everything else about the model is up to you.", "digits", None),
    (
        "We run on a microcontroller with hardly any memory, so the handwritten digit model mustn't go above 1500 "
        "parameters, and it has to be convolutional because that is what our firmware supports.",
        "digits",
        "cnn",
    ),
    (
        "Surprise me with a really little net that knows its handwritten digits; 94 percent correct would already make "
        "me happy.",
        "digits",
        None,
    ),
    # MNIST, all ten classes
    ("One MNIST classifier please, convolutional, roughly ten thousand parameters.", "mnist", "cnn"),
    (
        "I want to recognise the 28 by 28 pixel digit images everyone benchmarks on. A dense network will do.",
        "mnist",
        "mlp",
    ),
    ("can u make a nn for mnist", "mnist", None),
    (
        "LeCun's classic digit benchmark: I need a convnet for it that is right at least 98 times out of 100.",
        "mnist",
        "cnn",
    ),
    ("Please produce a multilayer perceptron with two hidden layers for the MNIST data set.", "mnist", "mlp"),
    ("For MNIST, what could you come up with in fewer than 20k weights? The architecture is your call.", "mnist", None),
    ("A CNN would be lovely; it's going to label MNIST images on my old phone.", "mnist", "cnn"),
    (
        "I'm trying to clasify MNIST with just fully-connected layers, can you send me a model that hits 95%?",
        "mnist",
        "mlp",
    ),
    (
        "Seventy thousand 28x28 handwritten digits, collected by LeCun, Cortes and Burges: you know the ones. "
        "Generate a network for them.",
        "mnist",
        None,
    ),
    ("Need: MNIST. Conv layers: yes. Parameter ceiling: 8000.", "mnist", "cnn"),
    (
        "Nothing fancy, just a feed-forward net which takes a flattened 784-pixel MNIST image and says which digit it "
        "is.",
        "mnist",
        "mlp",
    ),
    (
        "My inputs are 28x28 grey-scale pictures of handwritten digits, and I'd like the predicted class back, with an "
        "error rate below three percent.",
        "mnist",
        None,
    ),
    (
        "Do me a favour and put together an MNIST model whose first stage is a bank of learned filters slid across the "
        "image.",
        "mnist",
        "cnn",
    ),
    ("I'd be grateful for a big MLP on MNIST; go up to a hundred thousand parameters if you need to.", "mnist", "mlp"),
    ("Which digit is on this MNIST picture? That's the question the network should answer.", "mnist", None),
    ("A stack of plain linear layers, MNIST in and class scores out, at most 30,000 numbers to store.", "mnist", "mlp"),
    ("MNIST, ten classes, convolutions with pooling, please keep it modest in size", "mnist", "cnn"),
    # Subsets
    ("Could I get a conv net that can tell 3s from 8s on MNIST?", "mnist/3v8", "cnn"),
    (
        "4 or 9? My postcode reader keeps mixing them up, so make me a network that separates just those two MNIST "
        "classes.",
        "mnist/4v9",
        None,
    ),
    (
        "Only the ones and the sevens of MNIST matter here: dense model, max 1,000 weights, 99% correct if possible.",
        "mnist/1v7",
        "mlp",
    ),
    (
        "Take scikit-learn's handwritten digits and build a multilayer perceptron which says whether the number shown "
        "is even or odd.",
        "digits/even-odd",
        "mlp",
    ),
    ("i just want to know if a handwritten digit is even or odd, a tiny net is fine", "digits/even-odd", None),
]
