"""Which tokens belong to the text, where they stand in it, and how they are written."""

from __future__ import annotations

from app.core.work.job_events import TokenLogprob
from app.http.answers.logprobs import LEAST_LOGPROB, TokenTrack, legacy_block, place_prompt, prompt_offsets, token_text
from app.http.requests.job_output import Piece
from tests.contract.doubles import Characters, scored

VOCABULARY = Characters()


def piece(text, tokens="", end=None):
    return Piece(0, text, tuple(scored(ord(token)) for token in tokens), end)


def track(**options):
    return TokenTrack(VOCABULARY, **{"can_cut": True, **options})


def names(placed):
    return "".join(chr(one.token) for one in placed)


def test_a_token_waits_for_its_text():
    follower = track()
    assert names(follower.push(piece("", "ab"))) == ""
    assert names(follower.push(piece("abc", "c"))) == "abc"


def test_tokens_that_a_stop_string_cut_are_not_listed():
    follower = track()
    assert names(follower.push(piece("ab", "abEN"))) == "ab"
    assert names(follower.push(piece("", "D", "stop"))) == ""


def test_without_anything_that_cuts_every_token_is_listed_at_the_end():
    follower = track(can_cut=False)
    assert names(follower.push(piece("a", "a\x01\x00", "stop"))) == "a\x01\x00"


def test_the_end_token_has_no_text_and_is_listed():
    assert names(track().push(piece("a", "a\x00", "stop"))) == "a\x00"


def test_offsets_count_characters_over_split_ones():
    placed = place_prompt(VOCABULARY, [ord("é"), 1, 2, 3, 4, ord("b")], [scored(1)] * 5, "é\U0001f600b")
    assert [one.offset for one in placed] == [0, 1, 1, 1, 1, 2]
    assert placed[0].scored is None


class Pieces(Characters):
    """Sentencepiece's way: 200 begins a text with a space that is not there, 201 and 202 are special."""

    drops_space = True

    def is_special(self, token):
        return token in (0, 201, 202)

    def token_bytes(self, token):
        names = {200: b" Hi", 201: b"<|im_start|>", 202: b"<|im_end|>"}
        return names.get(token) or super().token_bytes(token)


def test_special_tokens_of_a_prompt_take_the_room_of_their_names():
    ids = [201, *map(ord, "user"), ord("\n"), 202, ord("b")]
    text = "<|im_start|>user\n<|im_end|>b"
    assert prompt_offsets(Pieces(), ids, text) == [0, 12, 13, 14, 15, 16, 17, 27]


def test_tokens_that_the_tokenizer_adds_take_no_room_in_the_prompt():
    assert prompt_offsets(Pieces(), [201, 200, ord("!"), 202], "Hi!") == [0, 0, 2, 3]
    assert prompt_offsets(Pieces(), [ord("a"), 200], "a Hi") == [0, 1]


def test_the_first_text_lacks_the_space_that_sentencepiece_thinks_before_it():
    follower = TokenTrack(Pieces(), can_cut=True, prompt_ids=[201])
    assert [one.offset for one in follower.push(Piece(0, "Hi!", (scored(200), scored(ord("!")))))] == [0, 2]
    follower = TokenTrack(Pieces(), can_cut=True, start=1, prompt_ids=[201, ord("a")])
    assert [one.offset for one in follower.push(Piece(0, " Hi!", (scored(200), scored(ord("!")))))] == [1, 4]


def test_offsets_of_a_completion_begin_after_what_is_echoed():
    assert [one.offset for one in track(start=5).push(piece("ab", "ab"))] == [5, 6]


def test_a_part_of_a_character_is_written_as_bytes():
    assert token_text(VOCABULARY, 1) == "bytes:\\xf0"
    assert token_text(VOCABULARY, 0) == "<end>"


def test_the_chosen_token_is_always_among_the_best():
    follower = track()
    placed = follower.push(Piece(0, "a", (TokenLogprob(97, -3.0, ((98, -1.0),)),)))
    block = legacy_block(VOCABULARY, placed)
    assert block == {
        "text_offset": [0],
        "tokens": ["a"],
        "token_logprobs": [-3.0],
        "top_logprobs": [{"b": -1.0, "a": -3.0}],
    }


def test_a_log_probability_of_nothing_is_a_json_number():
    placed = track().push(Piece(0, "a", (TokenLogprob(97, float("-inf"), ()),)))
    assert legacy_block(VOCABULARY, placed)["token_logprobs"] == [LEAST_LOGPROB]
