"""The words that prompts are read by, as plain data.

Phrases may be written naturally: case, plurals, hyphens and number words make no difference.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split(","))


VOCABULARY: dict[str, tuple[str, ...]] = {
    "digits": _phrases(
        """handwritten digits of 8x8 pixels, 8x8, 64 pixel, 8 pixel, 64 input, scikit-learn, scikit, sklearn, sk learn,
        sci-kit learn, load digits, optdigits, optical recognition, uci, 1797, 1.8 thousand, tiny scan?, small
        scan?, little scan?, tiny image?, tiny picture?, tiny digit?, tiny bitmap?, thumbnail?, thumbnail digit?,
        low resolution digit?, low resolution scan?, low resolution image?, low res digit?, toy digit?, digit,
        numeral, number, figure, handwritten, hand written, handwriting, hand drawn, handdrawn, pen written, penned,
        scribble, scribbled"""
    ),
    "mnist": _phrases(
        """handwritten digits of 28x28 pixels, mnist, m nist, nist, 28x28, 784 pixel, 28 pixel, 784 input, 784
        dimensional, lecun, le cun, yann, 60000 image, 70000 image, 60000 digit, 70000 digit, 60000 example, 70000
        example, 60000 sample, 70000 sample, hello world of, classic benchmark?, famous digit?, famous handwritten
        digit?, famous dataset?, digit, numeral, number, figure, handwritten, hand written, handwriting, hand drawn,
        handdrawn, pen written, penned, scribble, scribbled"""
    ),
}
"""Task → the phrases that mean it, the first of which describes it.

A phrase of several tasks decides nothing while another one does; alone it means the first task that lists it.
A phrase that ends in `?` is a hint: it yields to any phrase without.
"""

DIGIT_WORD = "digit"
"""A task that lists this phrase has the ten digits as classes, so `TASK/3v8` and `TASK/even-odd` are tasks too."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "cnn": _phrases(
        """cnn, conv, convolution, convolutional, convolutive, convolve, convolving, convolved, convnet, conv net, conv
        2 d, convolutional neural network, filter, kernel, feature map, receptive field, weight sharing, shared
        weight, lenet, sliding window, strided, max pooling, translation invariant, translation equivariant"""
    ),
    "mlp": _phrases(
        """mlp, perceptron, multilayer perceptron, multi layer perceptron, multilayer, multi layer, dense, densely
        connected, fully connected, fullyconnected, fully connected network, fully linked, fcn, fc, fcnn, ffn, ffnn,
        feed forward, feedforward, linear layer, stacked linear, affine layer, vanilla neural network, vanilla
        network, vanilla net, plain neural network, plain neural net, linear classifier, softmax regression,
        logistic regression, flattened, every pixel to every, all to all"""
    ),
}
"""Family → the phrases that mean it."""

LAYER_PHRASES = frozenset({"dense", "fully connected", "fc", "linear layer", "affine layer", "flattened"})
"""Phrases of the mlp family that may also name the last layers of a convolutional network."""

OTHER_FAMILIES: tuple[str, ...] = _phrases(
    """transformer, vit, vision transformer, resnet, residual network, res net, rnn, lstm, gru, recurrent, gan,
    adversarial network, autoencoder, auto encoder, unet, u net, svm, support vector machine, random forest,
    decision tree, gradient boosting, xgboost, knn, nearest neighbor, nearest neighbour, mobilenet, efficientnet,
    vgg, alexnet, densenet, spiking, gnn, graph neural network, capsule network, capsnet, bert, gpt, convnext,
    mixer, kolmogorov arnold"""
)
"""Kinds of networks and models that a prompt cannot ask for."""

OTHER_TASKS: tuple[str, ...] = _phrases(
    """cifar, cifar 10, cifar 100, imagenet, image net, tiny imagenet, fashion, fashion mnist, kmnist, kuzushiji,
    kuzushiji mnist, emnist, qmnist, notmnist, medmnist, pathmnist, moving mnist, color mnist, colored mnist,
    coloured mnist, audio mnist, spoken mnist, sign language mnist, sign language, svhn, street view, house number,
    number plate, license plate, licence plate, phone number, prime number, random number, roman numeral, seven
    segment, 7 segment, omniglot, coco, celeba, celeb a, stl 10, caltech, usps, lfw, pascal voc, quickdraw, quick
    draw, doodle, sketch, cat, kitten, dog, puppy, pet, bird, horse, animal, insect, face, facial, pedestrian,
    flower, fruit, vegetable, mushroom, plant, leaf, tree, food, clothing, clothe, garment, shirt, shoe, sneaker,
    handbag, car, vehicle, truck, airplane, aeroplane, aircraft, traffic sign, traffic, road sign, speech, spoken,
    voice, audio, speaker, music, song, sentiment, spam, email, tweet, movie, review, letter, alphabet, alphabetic,
    kanji, hiragana, katakana, hangul, devanagari, bengali, persian, chinese, arabic script, cyrillic, musical note,
    x ray, xray, mri, ct scan, tumor, tumour, cancer, lesion, retina, satellite, aerial, weather, stock price, time
    series, video, fraud, chess, iris, wine, titanic, protein, molecule, dna, genome, galaxy, gesture, emotion,
    fingerprint, barcode, qr code, captcha, digit of pi, depth estimation, segmentation, segment image, translate,
    translation, chatbot, language model, regression, object detection"""
)
"""Data and subjects that a prompt may ask for and that no built-in task is."""

SIZES: dict[str, tuple[str, ...]] = {
    "small": _phrases(
        """small, smaller, smallest, smallish, tiny, tinier, tiniest, compact, lightweight, light weight, light,
        lighter, lightest, little, mini, miniature, minimal, minimalist, minuscule, miniscule, micro, nano, pico,
        slim, thin, lean, petite, economical, frugal, parsimonious, pocket sized, low memory, small footprint,
        embedded, microcontroller, edge device, resource constrained, modest"""
    ),
    "large": _phrases(
        """large, larger, largest, big, bigger, biggest, huge, massive, hefty, wide, heavy, heavyweight, giant,
        enormous, high capacity, sizable, sizeable, generous, roomy"""
    ),
}

LAYERINGS: dict[str, tuple[str, ...]] = {
    "fewest": _phrases("shallow, shallower, shallowest"),
    "most": _phrases("deep, deeper, deepest"),
}

ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "relu": _phrases("relu, rectified linear, rectified linear unit, rectifier"),
    "leaky_relu": _phrases("leaky relu, leakyrelu, leaky rectified linear, leaky rectifier, leaky"),
    "tanh": _phrases("tanh, hyperbolic tangent"),
    "gelu": _phrases("gelu, gaussian error linear, gaussian error linear unit"),
    "silu": _phrases("silu, swish"),
    "sigmoid": _phrases("sigmoid"),
    "elu": _phrases("elu"),
    "selu": _phrases("selu"),
    "softplus": _phrases("softplus"),
    "mish": _phrases("mish"),
}

NETWORK_NOUNS = _words(
    """network net model classifier cnn mlp convnet perceptron recogniser recognizer reader nn predictor detector
    neural brain machine discriminator architecture system solution one thing"""
)
OTHER_NOUNS = _words(
    """image scan picture photo bitmap digit numeral number figure dataset data set drawing pixel character glyph
    thumbnail grid square example sample handwriting filter kernel window stride batch step learning margin version
    variant collection difference deal stroke pen line ink more less better bit"""
)
"""A size word that is said of one of these is not said of the network."""

CHUNK_ENDS = _words(
    """for that which who to of on in with from at by and or but is are be under over using reading trained training
    able capable can as so than whose not when where while should must only it its i a an the please"""
)
"""What ends the words that a size word is said of."""

CLAUSE_ENDS = _words(". , ; ! ? ( ) | but")
"""What ends a clause, in canonical text."""

GENERIC_WORDS = _words(
    """image picture photo scan thumbnail bitmap drawing sample example input data dataset set class category thing it
    them they item pixel grid one each all every any from in on by with for of label at grayscale greyscale gray
    grey black benchmark toy classic famous low and or network net correctly well reliably accurately entry row
    array character is are symbol content handwritten subject size version original"""
)
"""What "recognises …" may be followed by without naming a subject of its own."""

CORRECTED_WORDS: tuple[str, ...] = _phrases(
    """accuracy, accurate, approximately, around, below, between, classifier, compact, connected, fewer, fully,
    handwritten, hidden, kilobyte, large, layer, lightweight, million, network, neural, parameter, percent, scikit,
    shallow, small, thousand, tiny, weight, written"""
)
"""Words whose typing errors are put right, beside the one-word phrases of tasks and families."""

PROTECTED_WORDS = _words(
    """digital digitally digest last mist moist midst later lawyer fitter better letter latter smart smell stall shall
    still tidy tony rest test nest belong bellow wonder udder founder sender hinder hardened fever favor number
    numerous numb member lumber cover clever dance sense tense dens fence danced desk lever layout lately slayer
    player network networks notion nation million billion connect connector connects connecting concept weigh weighs
    weighing height heights eight night light lights right sight freight percentile file filed fire fires received
    simile learned learning learner learns least feast fewest scant scale scan scans small cause because permit
    percentage accused accurately common compare compat correction compete complete company contact fully fuller
    folly funny filled filling feeds feeling formal format forwarded forwards backward backwards kernels colonel
    filtered film files filed perception preceptor perceptive multiplayer multiplier console insist neutral multiple
    multiply multi convert conversion conversation confusion conviction conventional convenient convey conclusion
    connection tune tint ting tines toy digits mint mini minute minutes ministry honest modest most must mostly yarn
    yawn pure care compute computing computer impact largely large largish large-scale mall swallow hallow below
    blow tanks"""
)
"""Common words that look like a misspelt word of the vocabulary and are not."""
