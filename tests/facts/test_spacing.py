"""Where an answer begins with a space, script by script."""

import pytest

from mu_jax.facts.spacing import gap, unspaced


@pytest.mark.parametrize(
    ("prompt", "subject", "space"),
    [
        ("The capital of {} is", "France", " "),
        ("{}的首都是", "法国", ""),
        ("{}的首都是\uff1a", "法国", ""),
        ("{}的首都是:", "法国", ""),
        ("{}の首都は", "フランス", ""),
        ("ﾌﾗﾝｽ {} ﾉ", "x", ""),
        ("เมืองหลวงของ{}คือ", "ฝรั่งเศส", ""),
        ("ນະຄອນຫຼວງຂອງ{}ແມ່ນ", "ຝຣັ່ງ", ""),
        ("រដ្ឋធានីរបស់{}គឺ", "បារាំង", ""),
        ("{}၏မြို့တော်မှာ", "ပြင်သစ်", ""),
        ("{}གི་རྒྱལ་ས་ནི་", "x", ""),
        ("{}의 수도는", "프랑스", " "),
        ("Столица {} —", "Франции", " "),
        ("عاصمة {} هي", "فرنسا", " "),
        ("{} की राजधानी", "फ्रांस", " "),
        ("The city of {}", "北京", " "),  # English words decide
        ("{}:", "法国", ""),  # there are none
        ("{}:", "France", " "),
        ("{} +", "1", " "),
        ("The capital of {} (", "France", ""),
        ("The capital of {} is “", "France", ""),
        ('The capital of {} is "', "France", ""),
        ('The "capital" of the "{}"', "state", " "),  # a quote that closes
        ("Die Hauptstadt von „{}“", "X", " "),
        ("{}的首都是「", "法国", ""),
    ],
)
def test_the_prompts_own_words_decide(prompt, subject, space):
    assert gap(prompt, subject) == space


def test_letters_of_scripts():
    assert all(map(unspaced, "王々あアーㄅไกລកက།ｱ"))
    assert not any(map(unspaced, "aéжעبह한ᄒ1 .\uff21"))
